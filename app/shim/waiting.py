"""Who waits for whom: a graph of members and pipes, of which a look asks once for each reader."""

from collections import Counter
from collections.abc import Collection, Hashable, Mapping, Sequence

# A graph is gone through in full so many times at most, whatever its parents do while a look goes on.
MAX_COMPUTATIONS = 16


class Waiting:
    """Tell who of a tree waits for somebody that does not wait for him in turn.

    `above` are those that wait for a parent, each with that one; `inputs` are those that wait for writers, each with
    the pipe it reads; `writers` are by pipe. All are pids. A pipe is a node of the graph as well, so that many readers
    and many writers of it are as many edges as they are, and not the product.
    """

    def __init__(
        self,
        above: Mapping[int, int],
        inputs: Mapping[int, Hashable],
        writers: Mapping[Hashable, Collection[int]],
    ) -> None:
        self._above = dict(above)
        self._inputs = inputs
        self._writers = writers
        pids = {*above, *above.values(), *inputs, *(pid for some in writers.values() for pid in some)}
        self._nodes = {pid: number for number, pid in enumerate(pids)}
        self._pipes = {pipe: number for number, pipe in enumerate(dict.fromkeys(inputs.values()), len(pids))}
        self._component: list[int] = []
        self._outward: Counter[int] = Counter()
        self._stale = True
        self._computations = 0

    def waits(self, pid: int) -> bool:
        """Tell whether anybody keeps it waiting, directly or not, who does not, directly or not, wait for it.

        That is whether an edge leads out of its strongly connected component. Who is in that would never have a turn
        if all of them waited for each other, round a circle of pipes or as a reader and what it started.
        """
        if pid not in self._nodes:
            return False
        if self._stale:
            self._compute()
        return self._outward[self._component[self._nodes[pid]]] > 0

    def release(self, pid: int) -> None:
        """Have it wait for its parent no more.

        An edge between components goes without a change of these. One inside may break its component up, which takes
        a computation of all; after the last one those who waited for each other are taken to do so still, so that the
        worst is a reader that is signalled together with its writers.
        """
        parent = self._above.pop(pid, None)
        if parent is None or self._stale:
            return
        own = self._component[self._nodes[pid]]
        if own != self._component[self._nodes[parent]]:
            self._outward[own] -= 1
        elif self._computations < MAX_COMPUTATIONS:
            self._stale = True

    def _compute(self) -> None:
        self._stale = False
        self._computations += 1
        edges = self._edges()
        self._component = components(edges)
        self._outward = Counter(
            self._component[node]
            for node, targets in enumerate(edges)
            for target in targets
            # A pipe without writers keeps nobody waiting.
            if self._component[node] != self._component[target] and (target < len(self._nodes) or edges[target])
        )

    def _edges(self) -> list[list[int]]:
        edges: list[list[int]] = [[] for _ in range(len(self._nodes) + len(self._pipes))]
        for pid, parent in self._above.items():
            edges[self._nodes[pid]].append(self._nodes[parent])
        for pid, pipe in self._inputs.items():
            edges[self._nodes[pid]].append(self._pipes[pipe])
        for pipe, number in self._pipes.items():
            edges[number] += [self._nodes[pid] for pid in self._writers.get(pipe, ())]
        return edges


def components(edges: Sequence[Sequence[int]]) -> list[int]:
    """Return for each node which strongly connected component it is in, named by one of its nodes.

    Tarjan's algorithm, in time linear in nodes and edges, and without recursion, since a tree may be deep.
    """
    visited = 0
    order = [0] * len(edges)
    low = [0] * len(edges)
    component = [-1] * len(edges)
    open_nodes: list[int] = []
    for root in range(len(edges)):
        path = [] if order[root] else [(root, iter(edges[root]))]
        while path:
            node, targets = path[-1]
            if not order[node]:
                visited += 1
                order[node] = low[node] = visited
                open_nodes.append(node)
            for target in targets:
                if not order[target]:
                    path.append((target, iter(edges[target])))
                    break
                if component[target] < 0:
                    low[node] = min(low[node], order[target])
            else:
                path.pop()
                if path:
                    low[path[-1][0]] = min(low[path[-1][0]], low[node])
                if low[node] == order[node]:
                    _close(node, open_nodes, component)
    return component


def _close(node: int, open_nodes: list[int], component: list[int]) -> None:
    """Name the component of which this node was found first, whose nodes are the last ones that are open."""
    while component[node] < 0:
        component[open_nodes.pop()] = node
