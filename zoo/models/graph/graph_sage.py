r"""GraphSAGE (Hamilton, Ying and Leskovec, 2017): learn to aggregate, apply to nodes never seen.

"Inductive representation learning on large graphs", https://arxiv.org/abs/1706.02216

A layer maps each node's features and an aggregate of its neighbours' (algorithm 1, lines 4 and 5):

.. math:: x_i' = W_r\, x_i + W_l\, \mathrm{aggregate}_{j \in N(i)}\, x_j + b

where :math:`[W_r\; W_l]` is the paper's matrix that multiplies the two side by side, and
:math:`\mathrm{aggregate}` is the mean, an LSTM over the neighbours in random order, or the largest
of each feature, of :math:`\mathrm{relu}(W_p\, x_j + b_p)` in the paper (equation 3; `project`).

Differences from the paper: the layers are those of `torch_geometric`, whose checkpoints load here.
They have a bias, and make the outputs' length 1 only if told to (`normalize`; line 7). Unlike
PyG's, the LSTM ends at a node's last neighbour: there, it goes on over the padding, up to the
highest degree in the batch. Sampling of neighbours is left to the data.

| network on Cora (1,433 features, 7 classes) | parameters |
|---|---|
| `GraphSAGE`, 16 hidden channels, mean | 46,103 |
"""

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from zoo.layers.checks import check_at_least_one, check_probability
from zoo.layers.initialization import deferred_init, reset
from zoo.layers.message_passing import Edges
from zoo.layers.sparse import LastSeen, SparseMatrix, dropout, features_of, linear

Aggregator = Literal["mean", "max", "lstm"]
Features = Tensor | SparseMatrix


class LSTMAggregation(nn.Module):
    """The last state of an LSTM that reads each node's neighbours, zero where there are none.

    In training it reads them in random order, else in the order of the edges. Its steps are as many
    as the highest degree, which a GPU is waited for to tell.

    Args:
        in_channels: features of a neighbour.
        out_channels: features of the state.

    Shape:
        - input: x ``(sources, in_channels)``, and the edges
        - output: ``(nodes, out_channels)``
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(in_channels, out_channels, batch_first=True)

    def forward(self, x: Tensor, edges: Edges) -> Tensor:
        target, counts = edges.target, edges.target.counts
        order = target.order
        if self.training:
            order = torch.randperm(len(edges), device=x.device)
            order = order[target.node_of[order].argsort(stable=True)]
        # As `torch.nn.utils.rnn.pack_sequence` would: nodes of high degree first, and of all of
        # them the first neighbour, then of all that have two the second, ...
        nodes = counts.argsort(descending=True, stable=True)
        node_of = target.node_of[order]
        step_of = torch.arange(len(edges), device=x.device) - target.starts[node_of]
        by_step = (step_of * len(nodes) + nodes.argsort()[node_of]).argsort()
        states = x.new_zeros(len(nodes), self.lstm.hidden_size)
        if len(edges) == 0:
            return states
        sizes = step_of.bincount().cpu()  # how many nodes have so many neighbours
        messages = edges.source.gather(x)[order[by_step]]  # (edges, in_channels)
        _, (last, _) = self.lstm(PackedSequence(messages, sizes))
        return states.index_copy(0, nodes[: last.size(1)], last[0].to(states.dtype))


class SAGEConv(nn.Module):
    r"""One layer of GraphSAGE, without the non-linearity.

    Args:
        in_channels: features of a node; of a source and of a target where they are two kinds.
        out_channels: features of a node after the layer.
        aggr: ``mean``, ``max`` or ``lstm``.
        normalize: whether outputs have length 1.
        root_weight: whether a node's own features count.
        project: whether neighbours' features go through a linear map and a ReLU first.
        bias: whether there is a bias.

    Shape:
        - input: x ``(nodes, in_channels)``, or ``(x_source, x_target)`` where the sources are
          others; dense, or of CSR layout with the mean or `project`; edge_index ``(2, edges)``, or
          the same as `Edges`
        - output: ``(nodes, out_channels)``, one row a target

    Raises:
        ValueError: if an argument is outside its range; on a call, if ``edge_index`` is not a list
            of edges between the nodes of x, or the features must be dense.
    """

    def __init__(
        self,
        in_channels: int | tuple[int, int],
        out_channels: int,
        aggr: Aggregator = "mean",
        *,
        normalize: bool = False,
        root_weight: bool = True,
        project: bool = False,
        bias: bool = True,
    ) -> None:
        super().__init__()
        source, target = (in_channels,) * 2 if isinstance(in_channels, int) else in_channels
        check_at_least_one(in_channels=(source, target), out_channels=out_channels)
        if aggr not in ("mean", "max", "lstm"):
            raise ValueError(f"aggr must be mean, max or lstm, not {aggr!r}")
        self.aggr, self.normalize = aggr, normalize
        self.aggr_module = LSTMAggregation(source, source) if aggr == "lstm" else None
        self.lin = nn.Linear(source, source) if project else None
        self.lin_l = nn.Linear(source, out_channels, bias=bias)
        self.lin_r = nn.Linear(target, out_channels, bias=False) if root_weight else None

    def forward(
        self, x: Features | tuple[Features, Features], edge_index: Tensor | Edges
    ) -> Tensor:
        source, target = x if isinstance(x, tuple) else (x, x)
        if isinstance(edge_index, Tensor):
            edge_index = Edges(edge_index, target.shape[0], source.shape[0])
        if self.lin is not None:
            source = linear(source, self.lin.weight, self.lin.bias).relu()
        out = self._neighbours(source, edge_index)
        if self.lin_l.bias is not None:
            out = out + self.lin_l.bias
        if self.lin_r is not None:
            out = out + linear(target, self.lin_r.weight)
        return F.normalize(out) if self.normalize else out

    def _neighbours(self, x: Features, edges: Edges) -> Tensor:
        """The aggregate of each node's neighbours times the weights: ``(nodes, out_channels)``."""
        is_sparse = isinstance(x, SparseMatrix) or x.layout == torch.sparse_csr
        weight = self.lin_l.weight
        if self.aggr == "mean":
            # A mean of products is the product with the mean: whichever is the narrower.
            is_first = is_sparse or weight.size(0) < weight.size(1)
            counts = edges.target.counts.clamp_min(1).unsqueeze(1)
            h = linear(x, weight) if is_first or not isinstance(x, Tensor) else x
            mean = edges.propagate(h) / counts
            return mean if is_first else linear(mean, weight)
        if not isinstance(x, Tensor) or is_sparse:
            raise ValueError(
                f"x must be dense for aggr={self.aggr} without project, not of CSR layout"
            )
        if self.aggr_module is not None:
            return linear(self.aggr_module(x, edges), weight)
        return linear(edges.target.max(edges.source.gather(x)), weight)


class GraphSAGE(nn.Module):
    r"""GraphSAGE with ReLU between the layers and dropout before each.

    Dropout of sparse features acts on the stored values, see :func:`~zoo.layers.sparse.dropout`.

    Args:
        in_features: features of a node.
        num_classes: width of the output.
        hidden_channels: width of the layers in between.
        num_layers: number of layers.
        dropout: probability of silencing each input of each layer during training.
        aggr: ``mean``, ``max`` or ``lstm``.
        normalize: whether the outputs of the layers in between have length 1.
        project: whether neighbours' features go through a linear map and a ReLU first.
        cached: keep what depends on the graph alone, the edges in order and where the entries of
            sparse features lie, until a call gets another tensor (or the same one, changed in
            place): for training on one whole graph. No copy or state dict has any of it.

    Shape:
        - input: x ``(nodes, in_features)``, dense, or of CSR layout with the mean or `project`;
          edge_index ``(2, edges)``
        - output: logits ``(nodes, num_classes)``

    Raises:
        ValueError: if an argument is outside its range; on a call with `edge_weight`.
    """

    @deferred_init
    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        hidden_channels: int = 16,
        num_layers: int = 2,
        dropout: float = 0.5,
        aggr: Aggregator = "mean",
        normalize: bool = False,
        project: bool = False,
        cached: bool = True,
    ) -> None:
        super().__init__()
        check_at_least_one(
            in_features=in_features,
            num_classes=num_classes,
            hidden_channels=hidden_channels,
            num_layers=num_layers,
        )
        check_probability(dropout=dropout)
        widths = [in_features, *[hidden_channels] * (num_layers - 1), num_classes]
        self.convs = nn.ModuleList(
            SAGEConv(width, out, aggr, normalize=normalize and is_inner, project=project)
            for (width, out), is_inner in zip(
                pairwise(widths), [True] * (num_layers - 1) + [False], strict=True
            )
        )
        self.dropout, self.cached = dropout, cached
        self._edges, self._features = LastSeen(), LastSeen()

    @property
    def output_layers(self) -> list[str]:
        """The linear maps to the classes, for Muon to leave alone."""
        return [f"convs.{len(self.convs) - 1}.{name}" for name in ("lin_l", "lin_r")]

    def init_weights(self) -> None:
        reset(self)

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        if edge_weight is not None:
            raise ValueError("edge_weight must be None: GraphSAGE counts all neighbours alike")
        edges = self._edges(Edges, edge_index, x.size(0), keep=self.cached)
        h = features_of(x, self._features, keep=self.cached)
        for layer in range(len(self.convs)):
            h = self.apply_layer(layer, h, edges)
        logits: Tensor = h  # type: ignore[assignment]  # there is a layer at least
        return logits  # (nodes, num_classes)

    def apply_layer(
        self, layer: int, x: Features | tuple[Features, Features], edges: Tensor | Edges
    ) -> Tensor:
        """One layer, from logits of the one before; for all nodes of a graph layer by layer.

        Shape:
            - x: ``(nodes, width)``, or ``(x_source, x_target)``
            - output: ``(targets, width of the next layer)``
        """
        pair = x if isinstance(x, tuple) else (x,)
        ready = tuple(self._ready(layer, features) for features in pair)
        out: Tensor = self.convs[layer](ready if len(ready) == 2 else ready[0], edges)
        return out

    def _ready(self, layer: int, x: Features) -> Features:
        if layer > 0 and isinstance(x, Tensor):
            x = x.relu()
        return dropout(x, self.dropout, self.training)
