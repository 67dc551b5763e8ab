import torch

from benchmarks import graph_scale
from zoo.data.graphs.neighbours import IncomingEdges


def test_the_plain_reference_draws_as_many_edges_a_node_as_it_should_and_no_others():
    torch.manual_seed(0)
    edge_index = torch.randint(50, (2, 200)).unique(dim=1)
    edges = IncomingEdges.of(edge_index, 50)
    nodes, drawn = graph_scale._drawn_with_replacement(edges, torch.tensor([7, 3]))
    found = nodes[drawn]  # (2, edges), in the graph's numbers
    existing = set(map(tuple, edge_index.t().tolist()))
    assert set(map(tuple, found.t().tolist())) <= existing
    most = graph_scale.FAN_OUT[0]
    first = found[:, : 2 * most]
    assert first[1].tolist() == [7] * most + [3] * most  # both have edges
    reached = [node for node in first[0].unique().tolist() if edges.starts.diff()[node] > 0]
    assert found.size(1) == 2 * most + graph_scale.FAN_OUT[1] * len(reached)
