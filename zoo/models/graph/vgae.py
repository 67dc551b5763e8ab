r"""Graph autoencoders (Kipf and Welling, 2016).

"Variational graph auto-encoders", https://arxiv.org/abs/1611.07308

A graph convolutional network gives each node a vector, and nodes whose vectors point the same way
are linked:

.. math:: p(A_{ij} = 1 \mid z_i, z_j) = \sigma(z_i^\top z_j)

GAE: :math:`Z = \mathrm{GCN}(X, A)`. VGAE: each node has a normal distribution,

.. math:: q(z_i \mid X, A) = \mathcal{N}(z_i \mid \mu_i, \mathrm{diag}(\sigma_i^2)), \qquad
    \mu = \mathrm{GCN}_\mu(X, A), \quad \log \sigma = \mathrm{GCN}_\sigma(X, A)

which share their first layer, and what is learned bounds the likelihood of the graph from below:

.. math:: \mathcal{L} = \mathbb{E}_{q(Z|X, A)} \log p(A \mid Z)
    - \mathrm{KL}(q(Z|X, A) \,\|\, p(Z)), \qquad p(Z) = \prod_i \mathcal{N}(z_i \mid 0, I)

The decoder has no parameters and, with the objective, is in `zoo/tasks/link_prediction.py`: so the
encoders here, and any other network that gives a vector for each node, can be compared.

Differences from the paper: layers have biases, and :math:`\log\sigma` ends at 10, as in
`torch_geometric`, whose checkpoints load here.

| graph | features | `GAE` parameters | `VGAE` parameters |
|---|---|---|---|
| Cora | 1,433 | 46,416 | 46,944 |
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from zoo.layers.adjacency import normalized_adjacency
from zoo.layers.checks import check_at_least_one, check_probability
from zoo.layers.initialization import deferred_init, reset
from zoo.layers.sparse import LastSeen, SparseMatrix, dropout, features_of
from zoo.models.graph.gcn import GCNConv

MAX_LOGSTD = 10.0


class NodePosterior(NamedTuple):
    """Normal distributions of the nodes' vectors.

    Attributes:
        mean: ``(nodes, latent_dim)``.
        logstd: logarithm of the standard deviations, likewise.
    """

    mean: Tensor
    logstd: Tensor


class GCNEncoder(nn.Module):
    r"""Two graph convolutions, :math:`\hat A\, \mathrm{relu}(\hat A X W_0)\, W_1`.

    Shape:
        - input: x ``(nodes, in_features)``; adjacency, see :class:`~zoo.models.graph.gcn.GCNConv`
        - output: ``(nodes, latent_dim)``
    """

    def __init__(self, in_features: int, latent_dim: int, hidden_channels: int, p: float) -> None:
        super().__init__()
        self.conv1 = GCNConv(in_features, hidden_channels)
        self.conv2 = GCNConv(hidden_channels, latent_dim)
        self.p = p

    def forward(self, x: Tensor | SparseMatrix, adjacency: SparseMatrix) -> Tensor:
        h = torch.relu(self.conv1(dropout(x, self.p, self.training), adjacency))
        z: Tensor = self.conv2(dropout(h, self.p, self.training), adjacency)
        return z


class VariationalGCNEncoder(nn.Module):
    """The same with two second layers, of the means and of the deviations' logarithms.

    Shape:
        - input: as :class:`GCNEncoder`
        - output: :class:`NodePosterior`
    """

    def __init__(self, in_features: int, latent_dim: int, hidden_channels: int, p: float) -> None:
        super().__init__()
        self.conv1 = GCNConv(in_features, hidden_channels)
        self.conv_mu = GCNConv(hidden_channels, latent_dim)
        self.conv_logstd = GCNConv(hidden_channels, latent_dim)
        self.p = p

    def forward(self, x: Tensor | SparseMatrix, adjacency: SparseMatrix) -> NodePosterior:
        h = torch.relu(self.conv1(dropout(x, self.p, self.training), adjacency))
        h = dropout(h, self.p, self.training)
        logstd = self.conv_logstd(h, adjacency).clamp(max=MAX_LOGSTD)
        return NodePosterior(self.conv_mu(h, adjacency), logstd)


class _GraphAutoencoder(nn.Module):
    """What both have in common: the adjacency matrix, and an encoder made by `make`."""

    make: type[nn.Module]

    @deferred_init
    def __init__(
        self,
        in_features: int,
        latent_dim: int = 16,
        *,
        hidden_channels: int = 32,
        dropout: float = 0.0,
        cached: bool = True,
    ) -> None:
        super().__init__()
        check_at_least_one(
            in_features=in_features, latent_dim=latent_dim, hidden_channels=hidden_channels
        )
        check_probability(dropout=dropout)
        self.encoder = self.make(in_features, latent_dim, hidden_channels, dropout)
        self.latent_dim, self.cached = latent_dim, cached
        self._adjacency, self._features = LastSeen(), LastSeen()

    def init_weights(self) -> None:
        reset(self)

    def _encoded(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None) -> object:
        graph = x.size(0), edge_weight, next(self.parameters()).dtype
        adjacency = self._adjacency(normalized_adjacency, edge_index, *graph, keep=self.cached)
        h = features_of(x, self._features, keep=self.cached)
        found: object = self.encoder(h, adjacency)
        return found


class GAE(_GraphAutoencoder):
    """A graph autoencoder: a vector for each node.

    Args:
        in_features: features of a node.
        latent_dim: width of a node's vector.
        hidden_channels: width of the layer in between.
        dropout: probability of silencing each input of each layer during training.
        cached: keep what depends on the graph alone until a call gets another one, as in
            :class:`~zoo.models.graph.gcn.GCN`.

    Shape:
        - input: x ``(nodes, in_features)``, dense or of CSR layout; edge_index ``(2, edges)``;
          edge_weight ``(edges,)``, 1 where there is none
        - output: ``(nodes, latent_dim)``

    Raises:
        ValueError: if an argument is outside its range.
    """

    make = GCNEncoder

    def forward(self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        z = self._encoded(x, edge_index, edge_weight)
        assert isinstance(z, Tensor)
        return z


class VGAE(_GraphAutoencoder):
    """A variational graph autoencoder: a normal distribution for each node.

    Arguments and input are those of :class:`GAE`.

    Shape:
        - output: :class:`NodePosterior`
    """

    make = VariationalGCNEncoder

    def forward(
        self, x: Tensor, edge_index: Tensor, edge_weight: Tensor | None = None
    ) -> NodePosterior:
        posterior = self._encoded(x, edge_index, edge_weight)
        assert isinstance(posterior, NodePosterior)
        return posterior
