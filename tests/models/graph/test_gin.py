import networkx
import pytest
import torch

from zoo.models.graph.gin import GIN, gin0


def packed(graphs):
    """Graphs side by side, every node with the one feature 1."""
    sizes = torch.tensor([len(graph) for graph in graphs])
    starts = (sizes.cumsum(0) - sizes).tolist()
    edges = [
        (start + a, start + b)
        for start, graph in zip(starts, graphs, strict=True)
        for link in graph.edges
        for a, b in (link, link[::-1])
    ]
    x = torch.ones(int(sizes.sum()), 1, dtype=torch.double)
    batch = torch.arange(len(graphs)).repeat_interleave(sizes)
    return x, torch.tensor(edges).T, batch, len(graphs)


def colours(graph, rounds):
    """The multiset of colours after so many rounds of refinement (Weisfeiler and Lehman)."""
    colour = dict.fromkeys(graph, ())
    history = []
    for _ in range(rounds + 1):
        history.append(tuple(sorted(map(repr, colour.values()))))
        colour = {
            node: (colour[node], tuple(sorted((colour[n] for n in graph[node]), key=repr)))
            for node in graph
        }
    return tuple(history)


@pytest.mark.parametrize(("build", "count"), [(GIN, 8_444), (gin0, 8_440)])
def test_parameter_count_is_the_docstrings(build, count):
    assert sum(p.numel() for p in build(7, 2).parameters()) == count


def test_network_tells_apart_just_the_graphs_that_colour_refinement_does():
    graphs = [g for g in networkx.graph_atlas_g() if len(g) == 6 and g.number_of_edges()]
    outputs = []
    for seed in range(3):  # random weights may not do, but those of three networks together
        torch.manual_seed(seed)
        model = GIN(1, 4, num_layers=3, hidden_channels=32).double().eval()
        with torch.no_grad():
            outputs.append(model(*packed(graphs)))
    rows = torch.cat(outputs, dim=1)
    apart = (rows[:, None] - rows).norm(dim=2)
    refined = [colours(graph, 3) for graph in graphs]
    is_same = torch.tensor([[a == b for b in refined] for a in refined])
    assert is_same.sum() > len(graphs)  # there are pairs that refinement cannot tell apart
    assert apart[is_same].max() < 1e-12
    assert apart[~is_same].min() > 1e-6


def test_no_weights_tell_six_nodes_in_one_ring_from_two_rings_of_three():
    torch.manual_seed(0)
    inputs = packed(
        [networkx.cycle_graph(6), networkx.disjoint_union(*[networkx.cycle_graph(3)] * 2)]
    )
    for _ in range(5):
        one, two = GIN(1, 4).double().eval()(*inputs)
        torch.testing.assert_close(one, two)


def test_epsilon_is_learned_or_stays_zero():
    x, *graphs = packed([networkx.path_graph(4), networkx.star_graph(3)])
    for build, is_learned in ((GIN, True), (gin0, False)):
        torch.manual_seed(0)
        model = build(1, 2, dropout=0.0).double()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
        model(torch.rand_like(x), *graphs).square().sum().backward()
        optimizer.step()
        assert all(bool(conv.eps.abs().item() > 0) == is_learned for conv in model.convs)
        assert "convs.0.eps" in model.state_dict()


def test_readouts_are_linear_maps_of_all_layers_side_by_side():
    """Equation 4.2 as the paper writes it, on the layers that the network passes through."""
    torch.manual_seed(0)
    model = GIN(1, 3, num_layers=2, hidden_channels=8).double().eval()
    x, edge_index, batch, count = packed([networkx.path_graph(4), networkx.star_graph(4)])
    layers = [x]
    for conv, norm in zip(model.convs, model.norms, strict=True):
        layers.append(norm(conv(layers[-1], edge_index)).relu())
    weight = torch.cat([linear.weight for linear in model.readouts], dim=1)
    bias = sum(linear.bias for linear in model.readouts)
    sums = torch.stack([torch.cat(layers, dim=1)[batch == g].sum(0) for g in range(count)])
    torch.testing.assert_close(model(x, edge_index, batch, count), sums @ weight.T + bias)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_layers": 0}, "num_layers must be at least 1, not 0"),
        ({"hidden_channels": 0}, "hidden_channels must be at least 1, not 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), not 1.0"),
        ({"readout": "median"}, "readout must be sum, mean or max, not 'median'"),
    ],
)
def test_nonsense_is_refused_with_the_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        GIN(5, 3, **arguments)
