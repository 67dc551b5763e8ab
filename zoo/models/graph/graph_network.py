r"""Graph networks (Battaglia et al., 2018): edges, nodes and whole graphs learn from one another.

"Relational inductive biases, deep learning, and graph networks", https://arxiv.org/abs/1806.01261

A full block updates, in this order (algorithm 1), every edge k from s to r, every node i and the
graph's own features u, each by a network of its own:

.. math::
    e_k' &= \phi^e(e_k, v_r, v_s, u) \\
    v_i' &= \phi^v\big(\rho_{k: r_k = i}\; e_k',\; v_i,\; u\big) \\
    u'   &= \phi^u\big(\rho_k\; e_k',\; \rho_i\; v_i',\; u\big)

where :math:`\rho` is the sum, the mean or the largest. What is connected to what stays as it is.
The other orders are those of Sanchez-Lengeling et al., "A gentle introduction to graph neural
networks", 2021, https://doi.org/10.23915/distill.00033:

| order | edges learn from | nodes learn from | the graph learns from |
|---|---|---|---|
| ``edge_then_node`` | old nodes, graph | new edges, graph | new edges, new nodes |
| ``node_then_edge`` | new nodes, graph | old edges, graph | new edges, new nodes |
| ``weave`` | old nodes, graph | old edges, graph | new edges, new nodes |
| ``independent`` | nothing else | nothing else | nothing else |

Differences from the papers: the network of each update has two layers with ReLU, then layer
normalisation, as in the authors' library. The article's weave layer adds up four maps, from edges
and nodes to edges and nodes; here the first layer of each network does.

| network (7 features, 2 classes) | parameters |
|---|---|
| `GraphNetwork`, 3 blocks of 32 | 41,602 |
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from zoo.layers.checks import check_at_least_one
from zoo.layers.initialization import deferred_init, reset
from zoo.layers.message_passing import Aggregation, Edges, Ends

Order = Literal["edge_then_node", "node_then_edge", "weave", "independent"]
ORDERS = ("edge_then_node", "node_then_edge", "weave", "independent")


class Structure(NamedTuple):
    """What is connected to what in packed graphs; blocks read it and change nothing.

    Attributes:
        edges: from nodes to nodes.
        nodes: the graph of each node.
        links: the graph of each edge.
    """

    edges: Edges
    nodes: Ends
    links: Ends

    @classmethod
    def of(cls, edge_index: Tensor, batch: Tensor, num_graphs: int) -> "Structure":
        """The same of a ``(2, edges)`` list and each node's graph, ``(nodes,)``."""
        edges = Edges(edge_index, len(batch))
        links = batch.index_select(0, edges.target.node_of)
        return cls(edges, Ends(batch, num_graphs), Ends(links, num_graphs))


class GraphNetworkBlock(nn.Module):
    """One graph network block.

    Args:
        in_channels: features of an edge, of a node and of a graph.
        out_channels: the same after the block.
        hidden_channels: width of the layer between; None: that of the output.
        order: see the table above.
        aggregation: ``sum``, ``mean`` or ``max``.

    Shape:
        - input: x ``(nodes, in_channels)``, structure, edge_attr ``(edges, in_channels)``, u
          ``(graphs, in_channels)``
        - output: x, edge_attr and u, with other widths

    Raises:
        ValueError: if an argument is outside its range.
    """

    def __init__(
        self,
        in_channels: tuple[int, int, int],
        out_channels: tuple[int, int, int],
        *,
        hidden_channels: int | None = None,
        order: Order = "edge_then_node",
        aggregation: Aggregation = "sum",
    ) -> None:
        super().__init__()
        check_at_least_one(in_channels=in_channels, out_channels=out_channels)
        if order not in ORDERS:
            raise ValueError(f"order must be one of {', '.join(ORDERS)}, not {order!r}")
        if aggregation not in ("sum", "mean", "max"):
            raise ValueError(f"aggregation must be sum, mean or max, not {aggregation!r}")
        self.order, self.aggregation = order, aggregation
        (edge, node, graph), (new_edge, new_node, _) = in_channels, out_channels
        if order == "independent":
            widths = edge, node, graph
        else:
            seen_edge = new_edge if order == "edge_then_node" else edge
            seen_node = new_node if order == "node_then_edge" else node
            widths = (
                edge + 2 * seen_node + graph,
                seen_edge + node + graph,
                new_edge + new_node + graph,
            )
        self.edge_model, self.node_model, self.global_model = (
            _mlp(width, hidden_channels or out, out)
            for width, out in zip(widths, out_channels, strict=True)
        )

    def forward(
        self, x: Tensor, structure: Structure, edge_attr: Tensor, u: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        if self.order == "independent":
            return self.node_model(x), self.edge_model(edge_attr), self.global_model(u)
        if self.order == "edge_then_node":
            new_edges = self._edges(x, structure, edge_attr, u)
            new_x = self._nodes(x, structure, new_edges, u)
        elif self.order == "node_then_edge":
            new_x = self._nodes(x, structure, edge_attr, u)
            new_edges = self._edges(new_x, structure, edge_attr, u)
        else:
            new_edges = self._edges(x, structure, edge_attr, u)
            new_x = self._nodes(x, structure, edge_attr, u)
        return new_x, new_edges, self._graphs(new_x, structure, new_edges, u)

    def _edges(self, x: Tensor, structure: Structure, edge_attr: Tensor, u: Tensor) -> Tensor:
        edges, _, links = structure
        seen = [edge_attr, edges.target.gather(x), edges.source.gather(x), links.gather(u)]
        new: Tensor = self.edge_model(torch.cat(seen, dim=1))
        return new  # (edges, width)

    def _nodes(self, x: Tensor, structure: Structure, edge_attr: Tensor, u: Tensor) -> Tensor:
        incoming = structure.edges.target.aggregate(edge_attr, self.aggregation)
        new: Tensor = self.node_model(torch.cat([incoming, x, structure.nodes.gather(u)], dim=1))
        return new  # (nodes, width)

    def _graphs(self, x: Tensor, structure: Structure, edge_attr: Tensor, u: Tensor) -> Tensor:
        edges = structure.links.aggregate(edge_attr, self.aggregation)
        nodes = structure.nodes.aggregate(x, self.aggregation)
        new: Tensor = self.global_model(torch.cat([edges, nodes, u], dim=1))
        return new  # (graphs, width)


class GraphNetwork(nn.Module):
    """Encode, process, decode (section 4.3): blocks between linear maps, for packed graphs.

    Edges without features and graphs start with learned ones, the same for all. The output is read
    of edges, nodes and graphs together.

    Args:
        in_features: features of a node.
        num_classes: width of the output; 1 for a regression.
        edge_features: features of an edge; 0: it has none.
        hidden_channels: width of everything in between.
        num_layers: number of blocks.
        order: of the updates in a block, see the table above.
        aggregation: ``sum``, ``mean`` or ``max``.

    Shape:
        - input: x ``(nodes, in_features)``; edge_index ``(2, edges)``; batch, the graph of each
          node in rising order, int64 ``(nodes,)``; num_graphs, how many there are; edge_attr
          ``(edges, edge_features)`` if edges have features
        - output: logits ``(num_graphs, num_classes)``

    Raises:
        ValueError: if an argument is outside its range; on a call, if `edge_attr` does not fit.
    """

    @deferred_init
    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        edge_features: int = 0,
        hidden_channels: int = 32,
        num_layers: int = 3,
        order: Order = "edge_then_node",
        aggregation: Aggregation = "sum",
    ) -> None:
        super().__init__()
        check_at_least_one(
            in_features=in_features,
            num_classes=num_classes,
            hidden_channels=hidden_channels,
            num_layers=num_layers,
        )
        if edge_features < 0:
            raise ValueError(f"edge_features must be at least 0, not {edge_features}")
        self.edge_features, self.aggregation = edge_features, aggregation
        self.encode_nodes = nn.Linear(in_features, hidden_channels)
        self.encode_edges = nn.Linear(edge_features, hidden_channels) if edge_features else None
        self.first_edge = None if edge_features else nn.Parameter(torch.empty(hidden_channels))
        self.first_graph = nn.Parameter(torch.empty(hidden_channels))
        widths = (hidden_channels,) * 3
        self.blocks = nn.ModuleList(
            GraphNetworkBlock(widths, widths, order=order, aggregation=aggregation)
            for _ in range(num_layers)
        )
        self.decode = nn.Linear(3 * hidden_channels, num_classes)

    def init_weights(self) -> None:
        reset(self)
        for first in (self.first_edge, self.first_graph):
            if first is not None:
                nn.init.normal_(first)

    def forward(
        self,
        x: Tensor,
        edge_index: Tensor,
        batch: Tensor,
        num_graphs: int,
        edge_attr: Tensor | None = None,
    ) -> Tensor:
        structure = Structure.of(edge_index, batch, num_graphs)
        h, u = self.encode_nodes(x), self.first_graph.repeat(num_graphs, 1)
        edges = self._first_edges(edge_attr, edge_index.size(1))
        for block in self.blocks:
            h, edges, u = block(h, structure, edges, u)
        read = [
            structure.links.aggregate(edges, self.aggregation),
            structure.nodes.aggregate(h, self.aggregation),
            u,
        ]
        logits: Tensor = self.decode(torch.cat(read, dim=1))
        return logits  # (num_graphs, num_classes)

    def _first_edges(self, edge_attr: Tensor | None, count: int) -> Tensor:
        given = 0 if edge_attr is None else edge_attr.size(1)
        if given != self.edge_features:
            raise ValueError(f"edge_attr must have {self.edge_features} features, not {given}")
        if self.encode_edges is not None:
            encoded: Tensor = self.encode_edges(edge_attr)
            return encoded
        assert self.first_edge is not None
        return self.first_edge.repeat(count, 1)  # (edges, hidden_channels)


def _mlp(in_channels: int, hidden_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(in_channels, hidden_channels),
        nn.ReLU(),
        nn.Linear(hidden_channels, out_channels),
        nn.ReLU(),
        nn.LayerNorm(out_channels),
    )
