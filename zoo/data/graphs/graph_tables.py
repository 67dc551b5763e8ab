"""A graph in two tables: one of nodes, one of edges.

    id,age,height,label,split          source,target,weight
    ann,31,1.7,red,train               ann,bob,0.5
    bob,29,1.8,,                       bob,cem,2

Both have a header and are CSV or, if their names end in ``.tsv``, separated by tabs. The
identifiers of nodes are texts: ``7`` and ``07`` are two nodes.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from zoo.data.download import DataError
from zoo.data.graphs.batches import undirected
from zoo.data.tables import Table, finite_number, read_table


class NodeTable:
    """The nodes of a graph in the order of their rows.

    Args:
        path: the file.
        id: name of the column of identifiers.
        columns: names of others that there must be.

    Attributes:
        ids: the identifiers.
        number_of: the number of the node that an identifier names.

    Raises:
        DataError: the file is not such a table, or names a node twice.
    """

    def __init__(self, path: Path, id: str, *columns: str) -> None:
        self.path = path
        self.table = read_table(path, id, *columns)
        if not self.table.rows:
            raise DataError(f"{path} holds no node below its header")
        self.ids = self.texts(id)
        self.number_of: dict[str, int] = {}
        for number, name in enumerate(self.ids):
            if not name:
                raise DataError(f"{path}, line {self.line(number)}: the column {id!r} is empty")
            first = self.number_of.setdefault(name, number)
            if first != number:
                raise DataError(
                    f"{path}, line {self.line(number)}: the node {name!r} is there already, in "
                    f"line {self.line(first)}: remove one of the two or give it another name"
                )

    def line(self, number: int) -> int:
        """The line of the file that a node stands in."""
        return self.table.rows[number].line

    def texts(self, name: str) -> list[str]:
        """A column as it is."""
        place = self.table.column(name)
        return [row.fields[place] for row in self.table.rows]

    def features(self, names: Sequence[str]) -> Tensor:
        """Columns of numbers, float64 ``(nodes, columns)``.

        Raises:
            DataError: a value is not a finite number.
        """
        places = [self.table.column(name) for name in names]
        return torch.tensor(
            [
                [
                    finite_number(
                        row.fields[place],
                        f"{self.path}, line {row.line}: the column {name!r}",
                        "write a number there, or name the columns to use with data.features=[...]",
                    )
                    for name, place in zip(names, places, strict=True)
                ]
                for row in self.table.rows
            ],
            dtype=torch.float64,
        ).view(len(self.ids), len(names))


class EdgeList(NamedTuple):
    """Edges as batches have them.

    Attributes:
        edge_index: ``(2, edges)``, no self-loops, sorted by target, then source; both directions of
            each edge unless the graph is directed.
        edge_weight: float32 ``(edges,)``; None where all edges count alike.
        weight: name of the column of weights, if any.
        notes: what was left out, a line each.
    """

    edge_index: Tensor
    edge_weight: Tensor | None
    weight: str | None
    notes: list[str]


def read_edges(
    path: Path,
    nodes: NodeTable,
    *,
    source: str = "source",
    target: str = "target",
    weight: str | None = None,
    directed: bool = False,
) -> EdgeList:
    """Reads the edges between the nodes of a table.

    An edge that is listed again, in an undirected graph the other way round too, counts once.

    Args:
        path: the file.
        nodes: which nodes there are.
        source: name of the column that says where an edge comes from.
        target: name of the column that says where it leads.
        weight: name of the column of weights; ``auto``: ``weight``, if there is one; None: all
            edges count alike.
        directed: whether an edge leads one way alone.

    Raises:
        DataError: the file is not such a table, has no edges, names a node that is not there, gives
            an edge two weights, or is undirected but lists some edges both ways and others not.
    """
    table = read_table(path, source, target)
    if weight == "auto":
        weight = "weight" if "weight" in table.header else None
    found: dict[tuple[int, int], tuple[float, int]] = {}  # to weight and line
    loops = repeated = 0
    for (a, b), value, line in _edges(table, nodes, source, target, weight):
        if a == b:
            loops += 1
            continue
        for pair in ((a, b),) if directed else ((a, b), (b, a)):
            known, first = found.get(pair, (value, line))
            if known != value:
                raise DataError(
                    f"{path}, line {line}: the edge between {nodes.ids[a]!r} and {nodes.ids[b]!r} "
                    f"has the weight {value:g}, but {known:g} in line {first}: give it one weight"
                    + ("" if directed else ", or set data.directed=true if direction matters")
                )
        repeated += (a, b) in found
        found.setdefault((a, b), (value, line))
    if not found:
        raise DataError(
            f"{path} holds no edge between two different nodes: list one a line, or use a model "
            "that needs no graph"
        )
    if not directed:
        _check_undirected(path, found, nodes)
    links = torch.tensor(list(found)).T  # (2, links)
    notes = [f"{path}: {loops:,} self-loops are left out"] if loops else []
    if repeated:
        notes.append(f"{path}: {repeated:,} lines repeat an edge, which counts once")
    size = len(nodes.ids)
    edge_index = _sorted(links, size) if directed else undirected(links, size)
    if weight is None:
        return EdgeList(edge_index, None, None, notes)
    weights = {pair: value for pair, (value, _) in found.items()}
    values = [weights.get((a, b), weights.get((b, a))) for a, b in edge_index.T.tolist()]
    return EdgeList(edge_index, torch.tensor(values, dtype=torch.float32), weight, notes)


def _edges(
    table: Table, nodes: NodeTable, source: str, target: str, weight: str | None
) -> Iterator[tuple[tuple[int, int], float, int]]:
    """The ends, the weight and the line of each edge."""
    ends = [table.column(name) for name in (source, target)]
    place = None if weight is None else table.column(weight)
    for fields, line, _ in table.rows:
        for end in ends:
            if fields[end] not in nodes.number_of:
                raise DataError(
                    f"{table.path}, line {line}: the node {fields[end]!r} is not in {nodes.path}: "
                    "add it there or remove the edge"
                )
        a, b = (nodes.number_of[fields[end]] for end in ends)
        value = 1.0
        if place is not None:
            where = f"{table.path}, line {line}: the column {weight!r}"
            value = finite_number(fields[place], where, "write one, or set data.weight=null")
            if value <= 0:
                raise DataError(f"{where} has {fields[place]!r}: a weight must be above 0")
        yield (a, b), value, line


def _check_undirected(
    path: Path, found: dict[tuple[int, int], tuple[float, int]], nodes: NodeTable
) -> None:
    """Refuses a list in which the direction of an edge seems to mean something."""
    both = next((pair for pair in found if pair[::-1] in found), None)
    one = next((pair for pair in found if pair[::-1] not in found), None)
    if both is None or one is None:
        return
    back, (a, b) = found[both[::-1]][1], (nodes.ids[end] for end in one)
    raise DataError(
        f"{path}, line {found[one][1]}: the edge from {a!r} to {b!r} is listed one way, but that "
        f"of line {found[both][1]} is listed back in line {back}, as if edges had a direction: "
        "set data.directed=true, or list every edge once"
    )


def _sorted(links: Tensor, num_nodes: int) -> Tensor:
    """The same edges by target, then source."""
    order = (links[1] * num_nodes + links[0]).argsort()
    return links[:, order]
