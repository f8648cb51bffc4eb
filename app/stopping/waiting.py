"""Runs in the shim, the master and the worker: a graph of members and pipes that shows which members wait for which."""

from collections import Counter
from collections.abc import Collection, Hashable, Mapping, Sequence

# Computations of the whole graph in one look, at most, however many parents become due.
MAX_COMPUTATIONS = 16


class Waiting:
    """Tell which members of a tree wait for a process that does not wait for them in turn.

    `above` maps those that wait for their parent to it; `inputs` those that wait for writers to the pipe they read;
    `writers` a pipe to its writers. All are pids. A pipe is a node of the graph as well, so that m readers and n
    writers of it make m + n edges, not m * n.
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
        """Tell whether this process waits, directly or not, for one that does not wait for it in turn.

        It does if an edge leads out of its strongly connected component. Within one, a cycle of pipes or a reader and
        its child, members do not wait for each other, or none would ever have a turn.
        """
        if pid not in self._nodes:
            return False
        if self._stale:
            self._compute()
        return self._outward[self._component[self._nodes[pid]]] > 0

    def release(self, pid: int) -> None:
        """Remove the wait of a process for its parent.

        Removing an edge between components changes no component. Removing one inside may split its component, which
        needs a new computation; beyond `MAX_COMPUTATIONS` the members count as unsplit, so that at worst a reader is
        signalled together with its writers.
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
            # A pipe without writers keeps no reader waiting.
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
    """Return for each node its strongly connected component, named by one of the nodes in it.

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
    """Name the component whose first node found is this one; its nodes are the last open ones."""
    while component[node] < 0:
        component[open_nodes.pop()] = node
