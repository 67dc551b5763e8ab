"""Graph networks against the same of PyG's layers: a pass with loss, gradients and update.

A node network sees a random graph of Cora's size: PyG's gets the features dense, as its examples
have them, ours as sparse as they are. A graph network sees 128 graphs of a molecule's size, which
each side packs into one as it does in training; the step alone is measured too.
"""

import copy
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.timing import interleave, ratio
from zoo.data.graphs.batches import undirected
from zoo.data.graphs.packed import GraphStore
from zoo.layers.sparse import csr
from zoo.models.graph.appnp import APPNPNet
from zoo.models.graph.gat import GAT, GATv2
from zoo.models.graph.gcn import GCN
from zoo.models.graph.gin import GIN, GINConv
from zoo.models.graph.graph_sage import GraphSAGE
from zoo.training.optimizers import make_optimizer

NODES, LINKS, WIDTH, WORDS, CLASSES, LABELLED = 2_708, 5_278, 1_433, 18, 7, 140
GRAPHS, ATOMS, BONDS, KINDS = 128, 18, 20, 7
EPOCHS = 10


class _Nodes(nn.Module):
    """PyG's layers with dropout before each and an activation between them."""

    def __init__(
        self, convs: list[nn.Module], dropout: float, activation: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.convs, self.dropout, self.activation = nn.ModuleList(convs), dropout, activation

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        for layer, conv in enumerate(self.convs):
            x = self.activation(x) if layer > 0 else x
            x = conv(F.dropout(x, self.dropout, self.training), edge_index)
        return x


class _Propagated(nn.Module):
    """A perceptron and PyG's APPNP, as in its benchmark."""

    def __init__(self, ours: APPNPNet) -> None:
        from torch_geometric import nn as pyg

        super().__init__()
        self.lins = copy.deepcopy(ours.lins)
        spread = ours.propagation
        self.propagation: nn.Module = pyg.APPNP(spread.K, spread.alpha, spread.dropout, cached=True)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        for layer, lin in enumerate(self.lins):
            x = lin(F.dropout(x.relu() if layer > 0 else x, 0.5, self.training))
        spread: Tensor = self.propagation(x, edge_index)
        return spread


class _Graphs(nn.Module):
    """GIN of PyG's layers and pooling."""

    def __init__(self, ours: GIN) -> None:
        from torch_geometric import nn as pyg

        super().__init__()
        mlps = [copy.deepcopy(conv.nn) for conv in ours.convs if isinstance(conv, GINConv)]
        self.convs = nn.ModuleList(pyg.GINConv(mlp, train_eps=True) for mlp in mlps)
        self.norms, self.readouts = copy.deepcopy(ours.norms), copy.deepcopy(ours.readouts)
        self.dropout, self.pool = ours.dropout.p, pyg.global_add_pool

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor, num_graphs: int) -> Tensor:
        layers = [x]
        for conv, norm in zip(self.convs, self.norms, strict=True):
            layers.append(norm(conv(layers[-1], edge_index)).relu())
        return sum(  # type: ignore[return-value]
            F.dropout(readout(self.pool(layer, batch, num_graphs)), self.dropout, self.training)
            for layer, readout in zip(layers, self.readouts, strict=True)
        )


class Pair(NamedTuple):
    """A network of ours, the same of PyG's layers, and the bar of their ratio."""

    ours: nn.Module
    theirs: nn.Module
    bar: float


def _pairs() -> dict[str, Pair]:
    """Each network with its paper's sizes."""
    from torch_geometric import nn as pyg

    appnp, gin, attention = APPNPNet(WIDTH, CLASSES), GIN(KINDS, CLASSES), {"dropout": 0.6}
    return {
        "GCN": Pair(
            GCN(WIDTH, CLASSES),
            _Nodes(
                [pyg.GCNConv(WIDTH, 16, cached=True), pyg.GCNConv(16, CLASSES, cached=True)],
                0.5,
                F.relu,
            ),
            0.05,
        ),
        "GAT": Pair(
            GAT(WIDTH, CLASSES),
            _Nodes(
                [
                    pyg.GATConv(WIDTH, 8, 8, **attention),
                    pyg.GATConv(64, CLASSES, concat=False, **attention),
                ],
                0.6,
                F.elu,
            ),
            0.5,
        ),
        "GATv2": Pair(
            GATv2(WIDTH, CLASSES),
            _Nodes(
                [
                    pyg.GATv2Conv(WIDTH, 8, 8, **attention),
                    pyg.GATv2Conv(64, CLASSES, concat=False, **attention),
                ],
                0.6,
                F.elu,
            ),
            0.5,
        ),
        "GraphSAGE": Pair(
            GraphSAGE(WIDTH, CLASSES),
            _Nodes([pyg.SAGEConv(WIDTH, 16), pyg.SAGEConv(16, CLASSES)], 0.5, F.relu),
            1.0,
        ),
        "APPNP": Pair(appnp, _Propagated(appnp), 1.0),
        "GIN": Pair(gin, _Graphs(gin), 1.0),
    }


def _citations() -> tuple[Tensor, Tensor, Tensor]:
    """Features in CSR form and as they are, and links in both directions."""
    links = torch.randint(NODES, (2, LINKS))
    words = torch.rand(NODES, WIDTH).topk(WORDS).indices.sort().values  # each but once
    starts = torch.arange(0, NODES * WORDS + 1, WORDS)
    values = torch.full((NODES * WORDS,), 1 / WORDS)
    sparse = csr(starts, words.flatten(), values, (NODES, WIDTH))
    return sparse, sparse.to_dense(), torch.cat([links, links.flip(0)], 1)


class _Molecules:
    """Random graphs, and how each side packs them."""

    def __init__(self) -> None:
        from torch_geometric.data import Data

        kinds = F.one_hot(torch.randint(KINDS, (GRAPHS, ATOMS)), KINDS).float()
        bonds = torch.randint(ATOMS, (GRAPHS, 2, BONDS))
        graphs = [(x, undirected(links, ATOMS)) for x, links in zip(kinds, bonds, strict=True)]
        self.store = GraphStore.of(graphs, torch.zeros(GRAPHS))
        self.data = [Data(x, edge_index) for x, edge_index in graphs]
        self.chosen = torch.arange(GRAPHS)

    def ours(self) -> tuple[Any, ...]:
        """Features, edges and the graph of each node; how many graphs there are."""
        packed = self.store.pack(self.chosen)
        return packed.features, packed.edge_index, packed.batch, GRAPHS

    def theirs(self) -> tuple[Any, ...]:
        """The same of PyG."""
        from torch_geometric.data import Batch

        packed: Any = Batch.from_data_list(self.data)
        return packed.x, packed.edge_index, packed.batch, GRAPHS


def _epochs(
    model: nn.Module, inputs: Callable[[], tuple[Any, ...]], classes: Tensor
) -> Callable[[], float]:
    """Trains, and tells the seconds a pass."""
    optimizer = make_optimizer(torch.optim.Adam, model.train(), lr=1e-3, weight_decay=5e-4)

    def side() -> float:
        began = time.perf_counter()
        for _ in range(EPOCHS):
            optimizer.zero_grad()
            F.cross_entropy(model(*inputs())[: len(classes)], classes).backward()
            optimizer.step()
        return (time.perf_counter() - began) / EPOCHS

    return side


def _results(model: nn.Module, inputs: tuple[Any, ...]) -> list[Tensor]:
    """Outputs and gradients without dropout, gradients by name."""
    outputs = model.eval()(*inputs)
    parameters = dict(sorted(model.named_parameters()))
    return [outputs, *torch.autograd.grad(outputs.square().sum(), list(parameters.values()))]


def graphs(blocks: int) -> list[dict[str, Any]]:
    """Each network against PyG's, with the same weights."""
    torch.manual_seed(0)
    sparse, dense, links = _citations()
    molecules, results = _Molecules(), []
    packed = molecules.ours()
    for name, (ours, theirs, bar) in _pairs().items():
        if isinstance(ours, GIN):
            cases = {
                name: (molecules.ours, molecules.theirs, bar),
                f"{name}, packed before": (lambda: packed, lambda: packed, None),
            }
        else:
            cases = {name: (lambda: (sparse, links), lambda: (dense, links), bar)}
        for case, (for_ours, for_theirs, limit) in cases.items():
            theirs.load_state_dict(ours.state_dict())
            pairs = _results(ours, for_ours()), _results(theirs, for_theirs())
            if not all(torch.allclose(a, b, 1e-3, 1e-3) for a, b in zip(*pairs, strict=True)):
                raise SystemExit(f"{case}: the two networks disagree")
            classes = torch.randint(CLASSES, (GRAPHS if isinstance(ours, GIN) else LABELLED,))
            names = f"{case}, ours", f"{case}, PyG's"
            sides = {
                names[0]: _epochs(ours, for_ours, classes),
                names[1]: _epochs(theirs, for_theirs, classes),
            }
            results.append(ratio(interleave(sides, blocks), *names, limit))
    return results
