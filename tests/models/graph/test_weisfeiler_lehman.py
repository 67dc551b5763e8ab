"""What passing messages can tell apart, and what it cannot: pairs of graphs, and GIN on them."""

import pytest
import torch

from zoo.data.graphs.batches import undirected
from zoo.data.graphs.packed import GraphStore
from zoo.data.graphs.synthetic import WeisfeilerLehman
from zoo.models.graph.gin import GIN
from zoo.models.graph.structure_free import DeepMultiset

nx = pytest.importorskip("networkx")

DECALIN = nx.cycle_graph(10)  # two hexagons that share a bond
DECALIN.add_edge(0, 5)
BICYCLOPENTYL = nx.disjoint_union(nx.cycle_graph(5), nx.cycle_graph(5))  # two rings and a bond
BICYCLOPENTYL.add_edge(0, 5)
ROOK = nx.line_graph(nx.complete_bipartite_graph(4, 4))
SHRIKHANDE = nx.Graph(
    ((a, b), ((a + i) % 4, (b + j) % 4))
    for a in range(4)
    for b in range(4)
    for i, j in ((0, 1), (1, 0), (1, 1))
)

ALIKE = {  # No test of Weisfeiler and Lehman, hence no network that passes messages, tells them.
    "two triangles, a hexagon": (nx.disjoint_union(*[nx.cycle_graph(3)] * 2), nx.cycle_graph(6)),
    "two squares, an octagon": (nx.disjoint_union(*[nx.cycle_graph(4)] * 2), nx.cycle_graph(8)),
    "decalin, bicyclopentyl": (DECALIN, BICYCLOPENTYL),
    "a prism, three wells and houses": (
        nx.circular_ladder_graph(3),
        nx.complete_bipartite_graph(3, 3),
    ),
    "a cube, the Wagner graph": (nx.hypercube_graph(3), nx.circulant_graph(8, [1, 4])),
    "a pentagonal prism, Petersen's graph": (nx.circular_ladder_graph(5), nx.petersen_graph()),
    "cycles with other skips": (nx.circulant_graph(41, [1, 2]), nx.circulant_graph(41, [1, 3])),
    "the rook's graph, Shrikhande's graph": (ROOK, SHRIKHANDE),
}


def packed(*graphs):
    """Graphs whose nodes all have the same feature."""
    entries = []
    for graph in graphs:
        graph = nx.convert_node_labels_to_integers(graph)
        links = torch.tensor(list(graph.edges)).T
        entries.append((torch.ones(len(graph), 1).double(), undirected(links, len(graph))))
    return GraphStore.of(entries, torch.arange(len(graphs))).pack(torch.arange(len(graphs)))


def outputs(model, batch):
    with torch.no_grad():
        return model(batch.features.double(), *batch[1:3], len(batch.labels))


def gin(in_features, seed=0):
    torch.manual_seed(seed)
    return GIN(in_features, 3, hidden_channels=16, num_layers=5).double().eval()


@pytest.mark.parametrize("name", ALIKE)
def test_graphs_that_differ_look_the_same_to_every_gin(name):
    one, other = ALIKE[name]
    assert len(one) == len(other) and not nx.is_isomorphic(one, other)
    for seed in range(3):
        first, second = outputs(gin(1, seed), packed(one, other))
        torch.testing.assert_close(first, second, rtol=1e-12, atol=1e-12)


def test_gin_tells_graphs_apart_that_counts_of_degrees_do_not():
    data = WeisfeilerLehman(num_samples=2, eval_samples=40, batch_size=40)
    data.setup()
    (batch,) = data.batches("test", 0)
    apart, near = outputs(gin(4), batch).view(20, 2, 3).unbind(1)
    assert (apart - near).abs().amax(1).min() > 1e-3
    torch.manual_seed(0)
    apart, near = outputs(DeepMultiset(4, 3).double(), batch).view(20, 2, 3).unbind(1)
    torch.testing.assert_close(apart, near, rtol=1e-12, atol=1e-12)
