"""Who waits for whom, compared with a search from everybody to everybody."""

from collections.abc import Hashable, Mapping
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from app.stopping.waiting import MAX_COMPUTATIONS, Waiting

PIDS = st.integers(0, 7)
PIPES = st.integers(100, 103)


def reached(
    start: int, above: Mapping[int, int], inputs: Mapping[int, Hashable], writers: Mapping[Hashable, set[int]]
) -> set[int]:
    """Return the member and all that it waits for, directly or not."""
    found: set[int] = set()
    queue = [start]
    while queue:
        pid = queue.pop()
        if pid not in found:
            found.add(pid)
            queue += writers.get(inputs.get(pid), set())
            queue += [above[pid]] if pid in above else []
    return found


@given(
    above=st.dictionaries(PIDS, PIDS),
    inputs=st.dictionaries(PIDS, PIPES),
    writers=st.dictionaries(PIPES, st.sets(PIDS)),
    released=st.lists(PIDS),
)
def test_it_waits_for_those_that_do_not_wait_for_it(
    above: dict[int, int], inputs: dict[int, int], writers: dict[Hashable, set[int]], released: list[int]
) -> None:
    """A member waits when somebody is reached from it from whom it is not, before and after each release."""
    waiting = Waiting(above, inputs, writers)
    for gone in [-1, *released]:
        waiting.release(gone)
        above.pop(gone, None)
        reach = {pid: reached(pid, above, inputs, writers) for pid in range(8)}
        for pid, others in reach.items():
            assert waiting.waits(pid) == any(pid not in reach[one] for one in others)


def test_a_circle_that_never_stops_changing_is_taken_as_it_was() -> None:
    """After the last computation those in one circle stay in it, and who waits from outside still does."""
    shells = range(10, 10 + 4 * MAX_COMPUTATIONS, 2)
    above = {shell + 1: shell for shell in shells}
    inputs = {**dict.fromkeys(shells, 0), **dict.fromkeys(above, 1), 1: 0}
    waiting = Waiting(above, inputs, {0: [*above], 1: [*shells]})
    for child in above:
        assert [waiting.waits(pid) for pid in (1, child, child - 1)] == [True, False, False]
        waiting.release(child)


def test_no_depth_is_too_deep() -> None:
    """A tree many times as deep as Python recurses is gone through."""
    waiting = Waiting(dict(pairwise(range(50_000))), {}, {})
    assert waiting.waits(0)
    assert not waiting.waits(49_999)
