"""Reads the files of Planetoid (Yang, Cohen and Salakhutdinov 2016): pickles, read with care.

https://arxiv.org/abs/1603.08861, https://github.com/kimiyoung/planetoid. Each network is eight
files `ind.<name>.<part>`. The parts `x`, `tx`, `allx` are scipy matrices (features of the labelled
training nodes, the test nodes, all but the test nodes), `y`, `ty`, `ally` one-hot labels alike,
`graph` maps a node to its neighbours, and `test.index` says which nodes the rows of `tx` are.

A pickle can run any program. This reader builds nothing but arrays, lists and dictionaries, and
refuses whatever else a file asks for.
"""

import pickle
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from zoo.data.download import DataError

URL = "https://raw.githubusercontent.com/kimiyoung/planetoid/master/data/"
PARTS = ("x", "tx", "allx", "y", "ty", "ally", "graph", "test.index")
# sha256; of Citeseer and PubMed, none are known to us.
CHECKSUMS = {
    "ind.cora.x": "23cfa55d91c6f624233f5eb7b6e3f141f1bd2b2ae39608a63cf5d084bb27baab",
    "ind.cora.tx": "b9afbaa4a400df991f6f02ef677e1e44da55ffc04801fd02f9e673987829226a",
    "ind.cora.allx": "9419ba2f26f5c35243db64aba110e0f35a04851609e0dc5433450676ca6b8543",
    "ind.cora.y": "94465c14eb53e04ca262198dcbb2521ee8af60fb3f3d546cd6ca24a511b0e7d1",
    "ind.cora.ty": "41f5ac76596a1699cc33f53084a2419e92961c42bb75f36fc38e616d348532ad",
    "ind.cora.ally": "2b998f5cc7fedc86e7f97ca2498f47a1ffc1462c29e2d578b23bf3f62b6e7d71",
    "ind.cora.graph": "58f13302f39dde8852dad6fe6d15b89b077b6d7f837626bce671ef80344b383d",
    "ind.cora.test.index": "297ce89af2b51a6a194181c7dbe1796c6a1cf9cd9349a88383b1b1e227867875",
}


class CitationNetwork(NamedTuple):
    """A network as its files have it.

    Attributes:
        features: sparse COO ``(nodes, in_features)``, float32, coalesced.
        links: int64 ``(2, links)``, as listed: with repetitions, perhaps with self-loops.
        labels: int64 ``(nodes,)``; 0 for nodes that the files say nothing about.
        num_classes: width of the one-hot labels.
        num_labelled: the nodes from 0 on that are meant for training.
        test: int64, the test nodes in ascending order.
    """

    features: Tensor
    links: Tensor
    labels: Tensor
    num_classes: int
    num_labelled: int
    test: Tensor


def read_planetoid(folder: Path, name: str) -> CitationNetwork:
    """Puts a network together.

    Some test nodes of Citeseer are missing from the files: they have no links, no features, no
    label, and count in no split. They are kept, without features, so that the numbers of the
    other nodes stay what they are (as in the loader of Kipf and Welling's GCN).

    Args:
        folder: where the files are.
        name: as in the names of the files (``cora``).

    Raises:
        DataError: if a file is not what it should be.
    """
    paths = {part: folder / f"ind.{name}.{part}" for part in PARTS}
    parts: dict[str, Any] = {part: load_pickle(paths[part]) for part in PARTS[:-1]}
    try:
        order = torch.tensor([int(line) for line in paths["test.index"].read_text().split()])
        known = parts["ally"].shape[0]
        num_nodes = max(known, int(order.max()) + 1)
        rows, columns, values = [], [], []
        for part, nodes in (("allx", torch.arange(known)), ("tx", order)):
            row, column, value = parts[part].coordinates()
            rows.append(nodes[row])
            columns.append(column)
            values.append(value)
        indices = torch.stack((torch.cat(rows), torch.cat(columns)))  # (2, values)
        shape = (num_nodes, parts["allx"].shape[1])
        features = torch.sparse_coo_tensor(
            indices, torch.cat(values), shape, check_invariants=True
        ).coalesce()
        labels = torch.zeros(num_nodes, dtype=torch.int64)
        labels[:known] = torch.from_numpy(parts["ally"]).argmax(1)
        labels[order] = torch.from_numpy(parts["ty"]).argmax(1)
        links = torch.tensor([(i, int(j)) for i, row in parts["graph"].items() for j in row]).T
        if links.min() < 0 or links.max() >= num_nodes:
            raise ValueError(f"a link leads to node {int(links.max())} of {num_nodes}")
        num_labelled, num_classes = parts["y"].shape
        test = order.sort().values
        return CitationNetwork(features, links, labels, num_classes, num_labelled, test)
    except (AttributeError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"the files ind.{name}.* in {folder} do not make a network ({error}): delete them, so "
            f"that they are downloaded again"
        ) from error


class SparseRows:
    """Stands for scipy's ``csr_matrix`` while unpickling; holds the same arrays."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Takes over what the pickle has of a matrix."""
        self.shape: tuple[int, int] = tuple(state["_shape"])
        self.data, self.indices, self.indptr = (
            torch.from_numpy(np.array(state[key])) for key in ("data", "indices", "indptr")
        )

    def coordinates(self) -> tuple[Tensor, Tensor, Tensor]:
        """Row, column and value of each stored value."""
        row = torch.repeat_interleave(torch.arange(self.shape[0]), self.indptr.diff().long())
        return row, self.indices.long(), self.data.float()


def load_pickle(path: Path) -> Any:
    """Reads a Python 2 pickle of arrays, sparse matrices, lists and dictionaries.

    Raises:
        DataError: if it holds anything else, which is named, or is damaged.
    """
    with open(path, "rb") as file:
        try:
            return _Unpickler(file, encoding="latin1").load()
        except _Refused as error:
            raise DataError(
                f"{path} is not safe to read: it asks for {error}, which no Planetoid file needs; "
                f"delete it"
            ) from None
        except Exception as error:  # a damaged pickle can fail in any way
            raise DataError(
                f"{path} is damaged ({error}): delete it, so that it is downloaded again"
            ) from error


class _Refused(Exception):
    pass


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise _Refused(f"{module}.{name}")
        return _ALLOWED[module, name]


def _reconstruct_array(cls: type, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    return np.ndarray(shape, np.dtype(dtype))


def _make_dtype(name: str, align: int = 0, copy: int = 0) -> np.dtype:
    return np.dtype(name, align=bool(align))


# By the names of Python 2 and of Python 3, of old and of new numpy and scipy.
_ALLOWED: dict[tuple[str, str], Any] = {
    ("__builtin__", "list"): list,
    ("builtins", "list"): list,
    ("collections", "defaultdict"): defaultdict,
    ("numpy", "dtype"): _make_dtype,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct_array,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct_array,
    ("scipy.sparse.csr", "csr_matrix"): SparseRows,
    ("scipy.sparse._csr", "csr_matrix"): SparseRows,
}
