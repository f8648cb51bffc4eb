"""The load of a tree, from two samples of what its processes have used."""

from __future__ import annotations

import os

from app.linux.proc import Identity
from app.linux.usage import TICKS, private_bytes, read_usage
from app.supervisor.meter import Sample, _load

ONE, OTHER, KEEPER = Identity(10, 1), Identity(11, 2), Identity(9, 1)


def test_it_is_what_was_used_between_the_two() -> None:
    """Percents are of one processor, over the time that really passed."""
    load = _load(Sample(5.0, {ONE: (100, 7)}), Sample(7.0, {ONE: (100 + TICKS, 7)}))
    assert (load.percent, load.of) == (50.0, {ONE: 50.0})


def test_what_has_ended_counts_where_it_was_reaped() -> None:
    """A child's time moves to its parent when that reaps it, so that only what is new counts."""
    before = Sample(5.0, {ONE: (100, 0), OTHER: (3000, 400), KEEPER: (0, 0)})
    reaped = Sample(6.0, {ONE: (100, 3400 + TICKS // 2), KEEPER: (0, 0)})
    assert _load(before, reaped).percent == 50.0
    assert _load(before, Sample(6.0, {ONE: (100, 0), KEEPER: (0, 3400 + TICKS // 4)})).percent == 25.0


def test_a_process_that_is_new_has_no_load_of_its_own() -> None:
    """What it has used counts for the tree."""
    load = _load(Sample(5.0, {ONE: (0, 0)}), Sample(6.0, {ONE: (0, 0), OTHER: (TICKS, 0)}))
    assert (load.percent, load.of) == (100.0, {ONE: 0.0})


def test_it_is_never_out_of_bounds() -> None:
    """A process that was read just before it was reaped, and in its parent after that, gives no nonsense."""
    light, heavy = Sample(5.0, {ONE: (0, 0)}), Sample(6.0, {ONE: (0, 10**6 * TICKS)})
    assert _load(light, heavy).percent == 100.0 * (os.cpu_count() or 1)
    assert _load(Sample(7.0, heavy.ticks), Sample(8.0, light.ticks)).percent == 0.0


def test_usage_of_this_process() -> None:
    """The readings are the kernel's: processor time, memory in which a large buffer shows, none of a gone process."""
    before = read_usage(os.getpid())
    assert before is not None
    times = os.times()
    assert abs(before.own / TICKS - (times.user + times.system)) < 0.5
    size = private_bytes(os.getpid())
    buffer = bytearray(os.urandom(64 * 1024 * 1024))
    assert 60 * 1024 * 1024 < private_bytes(os.getpid()) - size < 140 * 1024 * 1024
    assert buffer
    gone = 2**22 + 1
    assert (read_usage(gone), private_bytes(gone)) == (None, 0)
