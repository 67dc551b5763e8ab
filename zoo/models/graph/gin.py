r"""Graph isomorphism network, GIN (Xu, Hu, Leskovec and Jegelka, 2019).

"How powerful are graph neural networks?", https://arxiv.org/abs/1810.00826

.. math::
    h_i^{(k)} = \mathrm{MLP}^{(k)}\Big((1 + \epsilon^{(k)})\, h_i^{(k-1)} +
    \sum_{j \in N(i)} h_j^{(k-1)}\Big), \qquad
    y_G = \sum_k A^{(k)} \sum_{i \in G} h_i^{(k)} + b^{(k)}

(equations 4.1 and 4.2). Sums, unlike means and maxima, tell multisets of neighbours apart, so the
network can tell apart all graphs that the Weisfeiler-Lehman test of colour refinement can, and no
network that passes messages tells more. A linear map of the layers' readouts side by side is the
sum of a linear map of each, and that is how it is written here and in the authors' code.

As in section 7 and the authors' code, an MLP has two layers with batch normalisation (over the
nodes of all graphs) and a ReLU after the first, and both follow the MLP once more; dropout acts on
what the readouts' maps give. The paper counts the input as a layer: its 5 layers are 4 here.

| network (7 features, 2 classes, 4 layers of 32) | parameters |
|---|---|
| `GIN` | 8,444 |
| `gin0`, :math:`\epsilon = 0` | 8,440 |
"""

import torch
from torch import Tensor, nn

from zoo.layers.checks import check_at_least_one, check_probability
from zoo.layers.initialization import deferred_init, reset
from zoo.layers.message_passing import Aggregation, Edges, Ends


class GINConv(nn.Module):
    r"""One layer of GIN.

    .. math:: x_i' = h\Big((1 + \epsilon)\, x_i + \sum_{j \in N(i)} x_j\Big)

    Args:
        nn: the network :math:`h`, of one row a node.
        eps: :math:`\epsilon`, or what it starts with.
        train_eps: whether it is learned.

    Shape:
        - input: x ``(nodes, width)``, or ``(x_source, x_target)`` where the sources are others;
          edge_index ``(2, edges)``, or the same as `Edges`
        - output: one row a target

    Raises:
        ValueError: on a call, if ``edge_index`` is not a list of edges between the nodes of x.
    """

    eps: Tensor

    def __init__(self, nn: nn.Module, eps: float = 0.0, *, train_eps: bool = False) -> None:
        super().__init__()
        self.nn, self.initial_eps = nn, eps
        if train_eps:
            self.eps = torch.nn.Parameter(torch.empty(1))
        else:
            self.register_buffer("eps", torch.empty(1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        torch.nn.init.constant_(self.eps, self.initial_eps)

    def forward(self, x: Tensor | tuple[Tensor, Tensor], edge_index: Tensor | Edges) -> Tensor:
        source, target = x if isinstance(x, tuple) else (x, x)
        if isinstance(edge_index, Tensor):
            edge_index = Edges(edge_index, target.size(0), source.size(0))
        out: Tensor = self.nn((1 + self.eps) * target + edge_index.propagate(source))
        return out


class GIN(nn.Module):
    r"""GIN for graphs, packed side by side.

    Args:
        in_features: features of a node.
        num_classes: width of the output.
        hidden_channels: width of all layers.
        num_layers: number of layers, the input not counted.
        dropout: probability of silencing each output of a readout's map during training.
        train_eps: whether :math:`\epsilon` is learned, from 0.
        readout: what is read of the nodes of a graph: ``sum``, ``mean`` or ``max``.

    Shape:
        - input: x ``(nodes, in_features)``; edge_index ``(2, edges)``; batch, the graph of each
          node in rising order, int64 ``(nodes,)``; num_graphs, how many there are
        - output: logits ``(num_graphs, num_classes)``

    Raises:
        ValueError: if an argument is outside its range.
    """

    @deferred_init
    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        hidden_channels: int = 32,
        num_layers: int = 4,
        dropout: float = 0.5,
        train_eps: bool = True,
        readout: Aggregation = "sum",
    ) -> None:
        super().__init__()
        check_at_least_one(
            in_features=in_features,
            num_classes=num_classes,
            hidden_channels=hidden_channels,
            num_layers=num_layers,
        )
        check_probability(dropout=dropout)
        if readout not in ("sum", "mean", "max"):
            raise ValueError(f"readout must be sum, mean or max, not {readout!r}")
        self.readout = readout
        widths = [in_features, *[hidden_channels] * num_layers]
        self.convs = nn.ModuleList(
            GINConv(_mlp(width, hidden_channels), train_eps=train_eps) for width in widths[:-1]
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(hidden_channels) for _ in self.convs)
        self.readouts = nn.ModuleList(nn.Linear(width, num_classes) for width in widths)
        self.dropout = nn.Dropout(dropout)

    @property
    def output_layers(self) -> list[str]:
        """The linear maps to the classes, for Muon to leave alone."""
        return [f"readouts.{layer}" for layer in range(len(self.readouts))]

    def init_weights(self) -> None:
        reset(self)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor, num_graphs: int) -> Tensor:
        edges, graphs = Edges(edge_index, x.size(0)), Ends(batch, num_graphs)
        layers = [x]  # of every layer, (nodes, width)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            layers.append(norm(conv(layers[-1], edges)).relu())
        logits = [
            self.dropout(linear(graphs.aggregate(layer, self.readout)))
            for layer, linear in zip(layers, self.readouts, strict=True)
        ]
        return torch.stack(logits).sum(0)  # (num_graphs, num_classes)


def gin0(
    in_features: int,
    num_classes: int,
    *,
    hidden_channels: int = 32,
    num_layers: int = 4,
    dropout: float = 0.5,
    readout: Aggregation = "sum",
) -> GIN:
    r"""GIN-0: :math:`\epsilon` stays 0. In the paper's table 1 it generalises slightly better."""
    return GIN(
        in_features,
        num_classes,
        hidden_channels=hidden_channels,
        num_layers=num_layers,
        dropout=dropout,
        train_eps=False,
        readout=readout,
    )


def _mlp(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(in_channels, out_channels),
        nn.BatchNorm1d(out_channels),
        nn.ReLU(),
        nn.Linear(out_channels, out_channels),
    )
