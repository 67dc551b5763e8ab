import pytest
import torch

from zoo.data.graphs.batches import StoredGraph
from zoo.data.graphs.neighbours import IncomingEdges, NeighbourSampler
from zoo.inference.layerwise import layerwise
from zoo.models.graph.gcn import GCN
from zoo.models.graph.graph_sage import GraphSAGE
from zoo.tasks.node_classification import NodeClassification

NODES = 60


@pytest.fixture
def graph():
    torch.manual_seed(0)
    edge_index = torch.randint(NODES - 1, (2, 240))  # the last node is alone
    return torch.randn(NODES, 5), edge_index, IncomingEdges.of(edge_index, NODES)


def network(**options):
    torch.manual_seed(1)
    sizes = {"hidden_channels": 6, "num_layers": 3} | options
    return GraphSAGE(5, 4, **sizes).eval()


@pytest.mark.parametrize("chunk", [7, NODES, 1000])
@pytest.mark.parametrize("aggr", ["mean", "max"])
def test_layer_by_layer_equals_all_at_once(graph, chunk, aggr):
    features, edge_index, edges = graph
    model = network(aggr=aggr)
    found = layerwise(model, features, edges.starts, edges.sources.int(), chunk=chunk)
    torch.testing.assert_close(found, model(features, edge_index))


@pytest.mark.parametrize("seeds", [[0], [3, 59, 17]])
def test_whole_neighbourhoods_give_what_the_whole_graph_gives(graph, seeds):
    features, edge_index, edges = graph
    model = network()
    sampler = NeighbourSampler(edges, (None, None, None))
    nodes, sampled = sampler.sample(torch.tensor(seeds), torch.Generator())
    expected = model(features, edge_index)[seeds]
    torch.testing.assert_close(model(features[nodes], sampled)[: len(seeds)], expected)


def test_a_network_without_layers_of_its_own_is_refused():
    x, starts, sources = torch.randn(3, 5), torch.tensor([0, 1, 2, 3]), torch.tensor([1, 2, 0])
    labels, mask = torch.zeros(3, dtype=torch.int64), torch.ones(3, dtype=torch.bool)
    batch = StoredGraph(x, starts, sources, labels, mask)
    with pytest.raises(ValueError, match="choose model=graph_sage"):
        NodeClassification(GCN(5, 4), num_classes=4).evaluate(batch)
    NodeClassification(network(), num_classes=4).evaluate(batch)
