"""Reads graphs from the text files of the TUDataset collection (Morris et al., 2020).

https://arxiv.org/abs/2007.08663, https://chrsmrrs.github.io/datasets/docs/format/. A data set NAME
is a folder of files whose nodes are numbered through from 1 on, as are its graphs:

| file | line |
|---|---|
| `NAME_A.txt` | an edge, `source, target` |
| `NAME_graph_indicator.txt` | the graph of a node |
| `NAME_graph_labels.txt` | the class of a graph |
| `NAME_graph_attributes.txt` | real numbers of a graph, for regression |
| `NAME_node_labels.txt`, `NAME_edge_labels.txt` | kinds of a node, of an edge: whole numbers |
| `NAME_node_attributes.txt`, `NAME_edge_attributes.txt` | real numbers of a node, of an edge |

The first two and one of the next two must be there.
"""

import re
import warnings
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
import torch
from torch import Tensor

from zoo.data.download import DataError

PARTS = (
    *("A", "graph_indicator", "graph_labels", "graph_attributes"),
    *("node_labels", "node_attributes", "edge_labels", "edge_attributes"),
)


class GraphFiles(NamedTuple):
    """What the files of a data set hold; what they do not is None.

    Attributes:
        edge_index: int64 ``(2, edges)``, nodes from 0 on, sorted by target, then source, each edge
            once and none from a node to itself.
        batch: the graph of each node from 0 on, int64 ``(nodes,)``, rising.
        graph_labels: int64 ``(graphs,)``, as in the file.
        graph_attributes: float32 ``(graphs, attributes)``.
        node_labels: int64 ``(nodes, kinds)``, as in the file.
        node_attributes: float32 ``(nodes, attributes)``.
        edge_labels: int64 ``(edges, kinds)``, as in the file.
        edge_attributes: float32 ``(edges, attributes)``.
    """

    edge_index: Tensor
    batch: Tensor
    graph_labels: Tensor | None
    graph_attributes: Tensor | None
    node_labels: Tensor | None
    node_attributes: Tensor | None
    edge_labels: Tensor | None
    edge_attributes: Tensor | None


def path_of(folder: Path, name: str, part: str) -> Path:
    """The file of one of `PARTS`."""
    return folder / f"{name}_{part}.txt"


def find_name(folder: Path) -> str:
    """The NAME before `_A.txt` in a folder.

    Raises:
        DataError: there is no such file, or there are several.
    """
    found = sorted(path.name.removesuffix("_A.txt") for path in folder.glob("*_A.txt"))
    if len(found) != 1:
        has = f"files of several data sets ({', '.join(found)})" if found else "no file NAME_A.txt"
        raise DataError(
            f"{folder} holds {has}: name a folder with the TU text files of one data set"
        )
    return found[0]


def read_graphs(
    folder: Path, name: str, *, directed: bool = False, has_targets: bool = True
) -> GraphFiles:
    """Reads a data set.

    Args:
        folder: where its files are.
        name: what their names begin with.
        directed: whether an edge may lack the one that leads back.
        has_targets: whether graphs must have a class or numbers; else they are not looked at.

    Raises:
        DataError: files are missing or wrong; the line is named.
    """

    def path(part: str) -> Path:
        return path_of(folder, name, part)

    for part in ("A", "graph_indicator"):
        if not path(part).is_file():
            raise DataError(f"{path(part)} is missing: put the file there")
    batch = _batch(path("graph_indicator"))
    num_nodes, num_graphs = len(batch), int(batch[-1]) + 1
    edges = _edges(path("A"), batch)
    rows = {"graph": num_graphs, "node": num_nodes, "edge": edges.shape[1]}
    tables: dict[str, Tensor | None] = dict.fromkeys(PARTS[2:])
    for part in tables:
        if part.startswith("graph") and not has_targets:
            continue
        kind, _, what = part.partition("_")
        if path(part).is_file():
            found = _read(path(part), whole=what == "labels")
            _check_length(path(part), len(found), rows[kind], f"{kind}s")
            tables[part] = found
    labels = tables["graph_labels"]
    if has_targets and labels is None and tables["graph_attributes"] is None:
        raise DataError(
            f"{path('graph_labels')} is missing, and {path('graph_attributes').name} too: put one "
            "of them there, with a line for each graph"
        )
    if labels is not None:
        if labels.shape[1] != 1:
            raise DataError(
                f"{path('graph_labels')} has {labels.shape[1]} numbers a line: write one, the class"
            )
        tables["graph_labels"] = labels.squeeze(1)
    kept = _kept(path("A"), edges, num_nodes, directed=directed)
    for part in ("edge_labels", "edge_attributes"):
        if (table := tables[part]) is not None:
            tables[part] = table[kept]
    return GraphFiles(edges[:, kept], batch, **tables)


def _batch(path: Path) -> Tensor:
    batch = _read(path, whole=True)[:, 0] - 1
    if not len(batch):
        raise DataError(f"{path} is empty: write the graph of each node, a line each")
    steps = batch.diff(prepend=batch.new_zeros(1))
    is_wrong = (steps < 0) | (steps > 1)
    is_wrong[0] = batch[0] != 0
    wrong = is_wrong.nonzero().flatten()
    if len(wrong):
        line = int(wrong[0])
        before = 0 if line == 0 else int(batch[line - 1]) + 1
        raise DataError(
            f"{path}, line {line + 1}: graph {int(batch[line]) + 1} follows graph {before}: number "
            "graphs from 1 on without gaps, the nodes of each one after the other"
        )
    return batch


def _edges(path: Path, batch: Tensor) -> Tensor:
    edges = _read(path, whole=True, columns=2).T - 1  # (2, edges)
    if not edges.numel():
        raise DataError(f"{path} has no edges: write `source, target` for each, a line each")
    wrong = ((edges < 0) | (edges >= len(batch))).any(0).nonzero().flatten()
    if len(wrong):
        line = int(wrong[0])
        indicator = path.name.removesuffix("A.txt") + "graph_indicator.txt"
        raise DataError(
            f"{path}, line {line + 1}: the edge {_written(edges, line)} names a node that does not "
            f"exist: {indicator} has those from 1 to {len(batch)}"
        )
    graphs = batch[edges]  # (2, edges)
    wrong = (graphs[0] != graphs[1]).nonzero().flatten()
    if len(wrong):
        line = int(wrong[0])
        first, second = (graphs[:, line] + 1).tolist()
        raise DataError(
            f"{path}, line {line + 1}: the edge {_written(edges, line)} leads from graph {first} "
            f"to graph {second}: edges must stay within a graph"
        )
    return edges


def _kept(path: Path, edges: Tensor, num_nodes: int, *, directed: bool) -> Tensor:
    """The lines of edges by target, then source, without repetitions and self-loops."""
    source, target = edges
    numbers = target * num_nodes + source
    order = numbers.argsort(stable=True)
    is_first = numbers[order].diff(prepend=numbers.new_tensor([-1])) != 0
    kept = order[is_first & (source != target)[order]]
    if not directed:
        back = source[kept] * num_nodes + target[kept]
        lonely = kept[~torch.isin(back, numbers[kept])]
        if len(lonely):
            line = int(lonely.min())
            raise DataError(
                f"{path}, line {line + 1}: the edge {_written(edges, line)} has none that leads "
                "back: write both directions of each, or say directed=true"
            )
    return kept


def _written(edges: Tensor, line: int) -> str:
    return "({}, {})".format(*(edges[:, line] + 1).tolist())


def _read(path: Path, *, whole: bool, columns: int | None = None) -> Tensor:
    """A table of numbers with commas between them: ``(lines, columns)``."""
    dtype = np.int64 if whole else np.float32
    try:
        content = path.read_bytes().rstrip()
        if gap := re.search(rb"(^|\n)[ \t\r]*\n", content):
            line = content.count(b"\n", 0, gap.end() - 1) + 1
            raise DataError(f"{path}, line {line}, is empty: write what is missing, or delete it")
        if not content:
            return torch.from_numpy(np.zeros((0, columns or 1), dtype))
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)  # 1.5 taken for a whole number
            found = np.loadtxt(path, dtype, delimiter=",", comments=None, ndmin=2, encoding="utf-8")
    except (ValueError, DeprecationWarning):
        _refuse(path, whole, columns)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error
    if columns is not None and found.shape[1] != columns:
        _refuse(path, whole, columns)
    if not np.isfinite(found).all():
        line = int((~np.isfinite(found)).any(1).nonzero()[0][0]) + 1
        raise DataError(f"{path}, line {line}: a number is not finite: write one that is")
    return torch.from_numpy(found)


def _refuse(path: Path, whole: bool, columns: int | None) -> NoReturn:
    """Names the first line that is not as the others must be."""
    kind = int if whole else float
    content = path.read_text(encoding="utf-8", errors="replace")
    for number, line in enumerate(content.splitlines(), 1):
        try:
            found = len([kind(entry) for entry in line.split(",")])
        except ValueError:
            found = 0
        columns = columns or found or 1
        if found != columns:
            numbers = "whole number" if whole else "number"
            expected = f"{columns} {numbers}s with commas" if columns > 1 else f"one {numbers}"
            example = ", ".join(map(str, range(1, columns + 1)))
            raise DataError(
                f"{path}, line {number}: {line.strip()[:60]!r} is not {expected}, as in {example!r}"
            )
    raise DataError(f"{path} is not a table of numbers with commas between them: write it anew")


def _check_length(path: Path, found: int, expected: int, what: str) -> None:
    if found < expected:
        raise DataError(
            f"{path} ends after line {found}, but there are {expected} {what}: write one for each"
        )
    if found > expected:
        raise DataError(
            f"{path}, line {expected + 1}: there are only {expected} {what}: delete the rest"
        )
