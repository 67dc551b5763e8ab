r"""Graph attention networks, GAT (Velickovic et al., 2018) and GATv2 (Brody et al., 2022).

"Graph attention networks", https://arxiv.org/abs/1710.10903, and "How attentive are graph attention
networks?", https://arxiv.org/abs/2105.14491

A node takes a weighted mean of its neighbours' features and its own, with weights that it computes
from both ends of each edge, once for each head:

.. math::
    x_i' = \sum_{j \in N(i) \cup \{i\}} \alpha_{ij}\, W x_j, \qquad
    \alpha_{ij} = \mathrm{softmax}_j(e_{ij})

.. math::
    \text{GAT:}\quad e_{ij} &= \mathrm{LeakyReLU}(a^\top [W x_i \,\|\, W x_j]) \\
    \text{GATv2:}\quad e_{ij} &= a^\top \mathrm{LeakyReLU}(W_r x_i + W_l x_j)

In GAT every node ranks all others alike, since what j adds to the score does not depend on i. GATv2
applies :math:`a` after the non-linearity, and each node has a ranking of its own.

Differences from the papers: the layers are those of `torch_geometric`, whose checkpoints load here.
There, GAT's two halves of :math:`a` are `att_dst` and `att_src`, and GATv2's two linear maps have
biases. Edge features and graphs whose sources are not their targets are left out.

| network on Cora (1,433 features, 7 classes) | parameters |
|---|---|
| `GAT` | 92,373 |
| `GATv2` | 184,604 |
"""

from typing import Any, Literal, overload

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.layers.checks import check_at_least_one, check_probability
from zoo.layers.initialization import deferred_init, reset
from zoo.layers.message_passing import Edges
from zoo.layers.sparse import LastSeen, SparseMatrix, dropout, features_of, linear


def attention_edges(edge_index: Tensor, num_nodes: int, add_self_loops: bool = True) -> Edges:
    """The edges along which nodes attend: with `add_self_loops`, to themselves just once."""
    edges = Edges(edge_index, num_nodes)
    return edges.with_self_loops() if add_self_loops else edges


class _Attention(nn.Module):
    """What GATConv and GATv2Conv have in common: all but the scores."""

    bias: nn.Parameter | None
    res: nn.Linear | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        heads: int,
        *,
        concat: bool,
        negative_slope: float,
        dropout: float,
        add_self_loops: bool,
        bias: bool,
        residual: bool,
    ) -> None:
        super().__init__()
        check_at_least_one(in_channels=in_channels, out_channels=out_channels, heads=heads)
        check_probability(dropout=dropout)
        self.out_channels, self.heads, self.concat = out_channels, heads, concat
        self.negative_slope, self.dropout = negative_slope, dropout
        self.add_self_loops = add_self_loops
        width = out_channels * (heads if concat else 1)
        self.res = nn.Linear(in_channels, width, bias=False) if residual else None
        self.bias = nn.Parameter(torch.empty(width)) if bias else None

    def reset_parameters(self) -> None:
        for layer in self.children():
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()
                nn.init.xavier_uniform_(layer.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def scores(self, x: Tensor | SparseMatrix, edges: Edges) -> tuple[Tensor, Tensor]:
        """What sources send, ``(nodes, heads, out_channels)``, and scores, ``(edges, heads)``."""
        raise NotImplementedError

    @overload
    def forward(
        self,
        x: Tensor | SparseMatrix,
        edge_index: Tensor | Edges,
        return_attention_weights: Literal[False] = False,
    ) -> Tensor: ...
    @overload
    def forward(
        self,
        x: Tensor | SparseMatrix,
        edge_index: Tensor | Edges,
        return_attention_weights: Literal[True],
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]: ...
    def forward(
        self,
        x: Tensor | SparseMatrix,
        edge_index: Tensor | Edges,
        return_attention_weights: bool = False,
    ) -> Tensor | tuple[Tensor, tuple[Tensor, Tensor]]:
        if isinstance(x, Tensor):
            x = features_of(x)
        edges = (
            edge_index
            if isinstance(edge_index, Edges)
            else attention_edges(edge_index, x.shape[0], self.add_self_loops)
        )
        sent, scores = self.scores(x, edges)
        alpha = dropout(edges.softmax(scores), self.dropout, self.training)  # (edges, heads)
        out = edges.propagate(sent, alpha)  # (nodes, heads, out_channels)
        out = out.flatten(1) if self.concat else out.mean(1)
        if self.res is not None:
            out = out + linear(x, self.res.weight)
        if self.bias is not None:
            out = out + self.bias
        return (out, (edges.edge_index, alpha)) if return_attention_weights else out

    def _heads(self, h: Tensor) -> Tensor:
        return h.view(-1, self.heads, self.out_channels)


class GATConv(_Attention):
    r"""Graph attention; equations 1 to 6 of GAT's paper, without the last non-linearity.

    Args:
        in_channels: features of a node.
        out_channels: features of a node after the layer, of each head.
        heads: number of heads.
        concat: whether the heads' features stand side by side; else their mean is taken.
        negative_slope: of the LeakyReLU.
        dropout: probability of not seeing a neighbour during training.
        add_self_loops: whether a node attends to itself, too. Self-loops of the graph do not count
            then.
        bias: whether there is a bias.
        residual: whether a linear map of the input is added.

    Shape:
        - input: x ``(nodes, in_channels)``, dense or of CSR layout; edge_index ``(2, edges)``, or
          what :func:`attention_edges` makes of it
        - output: ``(nodes, heads * out_channels)``, or ``(nodes, out_channels)`` without `concat`;
          with ``return_attention_weights=True`` also ``(edge_index, alpha)``: all edges, the
          self-loops last, and their weights ``(edges, heads)``, zero for edges that do not count

    Raises:
        ValueError: if an argument is outside its range; on a call, if ``edge_index`` is not a list
            of edges between the nodes of x.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        heads: int = 1,
        *,
        concat: bool = True,
        negative_slope: float = 0.2,
        dropout: float = 0.0,
        add_self_loops: bool = True,
        bias: bool = True,
        residual: bool = False,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            heads,
            concat=concat,
            negative_slope=negative_slope,
            dropout=dropout,
            add_self_loops=add_self_loops,
            bias=bias,
            residual=residual,
        )
        self.lin = nn.Linear(in_channels, heads * out_channels, bias=False)
        self.att_src = nn.Parameter(torch.empty(1, heads, out_channels))
        self.att_dst = nn.Parameter(torch.empty(1, heads, out_channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        _glorot(self.att_src)
        _glorot(self.att_dst)

    def scores(self, x: Tensor | SparseMatrix, edges: Edges) -> tuple[Tensor, Tensor]:
        h = self._heads(linear(x, self.lin.weight))
        source, target = ((h * att).sum(2) for att in (self.att_src, self.att_dst))
        both = edges.source.gather(source) + edges.target.gather(target)
        return h, F.leaky_relu(both, self.negative_slope)


class GATv2Conv(_Attention):
    r"""Graph attention with a ranking for each node; equation 7 of GATv2's paper.

    Args:
        in_channels: features of a node.
        out_channels: features of a node after the layer, of each head.
        heads: number of heads.
        concat: whether the heads' features stand side by side; else their mean is taken.
        negative_slope: of the LeakyReLU.
        dropout: probability of not seeing a neighbour during training.
        add_self_loops: whether a node attends to itself, too. Self-loops of the graph do not count
            then.
        bias: whether there are biases, of the linear maps and of the layer.
        share_weights: whether one linear map serves both ends of an edge.
        residual: whether a linear map of the input is added.

    Shape:
        - input, output: as :class:`GATConv`

    Raises:
        ValueError: as :class:`GATConv`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        heads: int = 1,
        *,
        concat: bool = True,
        negative_slope: float = 0.2,
        dropout: float = 0.0,
        add_self_loops: bool = True,
        bias: bool = True,
        share_weights: bool = False,
        residual: bool = False,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            heads,
            concat=concat,
            negative_slope=negative_slope,
            dropout=dropout,
            add_self_loops=add_self_loops,
            bias=bias,
            residual=residual,
        )
        self.lin_l = nn.Linear(in_channels, heads * out_channels, bias=bias)
        self.lin_r = (
            self.lin_l if share_weights else nn.Linear(in_channels, heads * out_channels, bias=bias)
        )
        self.att = nn.Parameter(torch.empty(1, heads, out_channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        _glorot(self.att)

    def scores(self, x: Tensor | SparseMatrix, edges: Edges) -> tuple[Tensor, Tensor]:
        source = target = self._heads(linear(x, self.lin_l.weight, self.lin_l.bias))
        if self.lin_r is not self.lin_l:
            target = self._heads(linear(x, self.lin_r.weight, self.lin_r.bias))
        both = edges.source.gather(source) + edges.target.gather(target)
        return source, (F.leaky_relu(both, self.negative_slope) * self.att).sum(2)


class GAT(nn.Module):
    r"""Graph attention with ELU between the layers and dropout before each (section 3.3).

    All layers but the last put their heads side by side; the last takes their mean. Dropout of
    sparse features acts on the stored values, see :func:`~zoo.layers.sparse.dropout`.

    Args:
        in_features: features of a node.
        num_classes: width of the output.
        hidden_channels: features of a head of the layers in between.
        num_layers: number of layers.
        heads: heads of a layer.
        output_heads: heads of the last layer.
        dropout: probability of silencing each input of each layer, and each neighbour, during
            training.
        negative_slope: of the LeakyReLU.
        cached: keep what depends on the graph alone, the edges in order and where the entries of
            sparse features lie, until a call gets another tensor (or the same one, changed in
            place): for training on one whole graph. No copy or state dict has any of it.

    Shape:
        - input: x ``(nodes, in_features)``, dense or of CSR layout; edge_index ``(2, edges)``
        - output: logits ``(nodes, num_classes)``

    Raises:
        ValueError: if an argument is outside its range; on a call with `edge_weight`.
    """

    layer: type[GATConv | GATv2Conv] = GATConv

    @deferred_init
    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        hidden_channels: int = 8,
        num_layers: int = 2,
        heads: int = 8,
        output_heads: int = 1,
        dropout: float = 0.6,
        negative_slope: float = 0.2,
        cached: bool = True,
    ) -> None:
        super().__init__()
        check_at_least_one(
            in_features=in_features,
            num_classes=num_classes,
            hidden_channels=hidden_channels,
            num_layers=num_layers,
            heads=heads,
            output_heads=output_heads,
        )
        check_probability(dropout=dropout)
        widths = [in_features, *[heads * hidden_channels] * (num_layers - 1)]
        self.convs = nn.ModuleList(
            self.layer(
                width,
                hidden_channels if is_inner else num_classes,
                heads if is_inner else output_heads,
                concat=is_inner,
                negative_slope=negative_slope,
                dropout=dropout,
            )
            for width, is_inner in zip(widths, [True] * (num_layers - 1) + [False], strict=True)
        )
        self.dropout, self.cached = dropout, cached
        self._edges, self._features = LastSeen(), LastSeen()

    @property
    def output_layers(self) -> list[str]:
        """The linear maps of the last layer, for Muon to leave alone."""
        return [
            f"convs.{len(self.convs) - 1}.{name}" for name, _ in self.convs[-1].named_children()
        ]

    def init_weights(self) -> None:
        reset(self)

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        if edge_weight is not None:
            raise ValueError("edge_weight must be None: attention computes the edges' weights")
        edges = self._edges(attention_edges, edge_index, x.size(0), keep=self.cached)
        h: Any = features_of(x, self._features, keep=self.cached)
        for layer, conv in enumerate(self.convs):
            if layer > 0:
                h = F.elu(h)
            h = dropout(h, self.dropout, self.training)
            h = conv(h, edges)
        logits: Tensor = h
        return logits  # (nodes, num_classes)


class GATv2(GAT):
    """The same network of :class:`GATv2Conv`."""

    layer = GATv2Conv


def _glorot(attention: Tensor) -> None:
    """Uniform as Glorot and Bengio say of a ``(heads, out_channels)`` matrix."""
    nn.init.xavier_uniform_(attention[0])
