import pytest
import torch

from zoo.data.graphs.batches import undirected
from zoo.data.graphs.packed import GraphStore, PackedGraphs, PackedLoader


def graphs(count=23, *, smallest=1):
    """Random graphs, of which some have no edges and one a single node."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for number in range(count):
        nodes = smallest + int(torch.randint(9, (), generator=generator)) * (number > 0)
        links = torch.randint(nodes, (2, nodes * (number % 3)), generator=generator)
        found.append((torch.rand(nodes, 4, generator=generator), undirected(links, nodes)))
    return found


def loader(given, *, part=(0, 1), **options):
    store = GraphStore.of(given, torch.arange(len(given)))
    options = {"batch_size": 5, "shuffle": True, "seed": 3} | options
    return PackedLoader(store, torch.arange(len(given)), part=part, **options)


def unpacked(packed):
    """The graphs of a batch one by one, by a loop."""
    assert torch.equal(packed.batch, packed.batch.sort().values)
    found, edge_graph = [], packed.batch[packed.edge_index[1]]
    for number in range(len(packed.labels)):
        start = int((packed.batch < number).sum())
        edges = packed.edge_index[:, edge_graph == number] - start
        found.append((packed.features[packed.batch == number], edges))
    return found


def test_packed_graphs_are_those_that_were_asked_for_in_their_order():
    given = graphs()
    store = GraphStore.of(given, torch.arange(23) * 10)
    chosen = torch.tensor([7, 0, 22, 7, 1])
    packed = store.pack(chosen)
    assert packed.labels.tolist() == [70, 0, 220, 70, 10]
    for (features, edges), number in zip(unpacked(packed), chosen.tolist(), strict=True):
        assert torch.equal(features, given[number][0])
        assert torch.equal(edges, given[number][1])


def test_edges_of_a_batch_are_sorted_by_target_then_source():
    source, target = GraphStore.of(graphs(), torch.arange(23)).pack(torch.arange(23)).edge_index
    numbers = target * 1000 + source
    assert (numbers.diff() > 0).all()


def test_edge_features_come_with_their_edges():
    given = graphs()
    counts = [edges.shape[1] for _, edges in given]
    plain = GraphStore.of(given, torch.arange(23)).pack(torch.arange(23))
    marks = torch.arange(sum(counts)).float().unsqueeze(1)
    store = GraphStore(*plain[:4], edge_features=marks)
    packed = store.pack(torch.tensor([4, 2]))
    starts = torch.tensor([0, *counts]).cumsum(0)
    expected = [*range(starts[4], starts[5]), *range(starts[2], starts[3])]
    assert packed.edge_features.squeeze(1).tolist() == expected


@pytest.mark.parity
def test_packed_graphs_equal_torch_geometrics_batch():
    data = pytest.importorskip("torch_geometric.data")
    given = graphs(60)
    chosen = torch.randperm(60, generator=torch.Generator().manual_seed(1))[:40]
    ours = GraphStore.of(given, torch.arange(60)).pack(chosen)
    theirs = data.Batch.from_data_list(
        [data.Data(given[i][0], given[i][1], y=torch.tensor([i])) for i in chosen.tolist()]
    )
    assert ours.edge_features is None
    for mine, other in zip(
        ours, (theirs.x, theirs.edge_index, theirs.batch, theirs.y), strict=False
    ):
        assert torch.equal(mine, other)


def test_every_epoch_has_every_graph_once_in_another_order():
    epochs = [torch.cat([b.labels for b in loader(graphs()).batches(e)]) for e in (0, 1, 0)]
    assert all(e.sort().values.tolist() == list(range(23)) for e in epochs)
    assert not torch.equal(epochs[0], epochs[1]) and torch.equal(epochs[0], epochs[2])


def test_starting_late_gives_the_rest_of_the_same_epoch():
    whole = list(loader(graphs()).batches(2))
    late = list(loader(graphs()).batches(2, start=3))
    assert len(whole) == len(loader(graphs())) == 5
    for one, other in zip(whole[3:], late, strict=True):
        assert all(x is y or torch.equal(x, y) for x, y in zip(one, other, strict=True))


def test_indices_name_the_graphs_of_the_data_set():
    store = GraphStore.of(graphs(), torch.arange(23))
    split = torch.tensor([3, 8, 9, 20, 21])
    made = PackedLoader(store, split, batch_size=2, shuffle=True, seed=1)
    for number, batch in enumerate(made.batches(4)):
        assert made.indices(4, number) == batch.labels.tolist()
    assert made.num_samples == 5


@pytest.mark.parametrize("world", [2, 3])
def test_parts_one_after_the_other_are_the_batch(world):
    given = graphs()
    whole = list(loader(given).batches(1))
    parts = [list(loader(given, part=(rank, world)).batches(1)) for rank in range(world)]
    for number, batch in enumerate(whole):
        there = [part[number] for part in parts if part[number] is not None]
        assert torch.equal(torch.cat([p.labels for p in there]), batch.labels)
        assert torch.equal(torch.cat([p.features for p in there]), batch.features)


def test_part_without_any_graph_of_a_batch_has_none_in_its_place():
    last = list(loader(graphs(11), part=(1, 2)).batches(0))[-1]
    assert last is None


def test_empty_graphs_of_one_node_are_graphs_too():
    packed = GraphStore.of(graphs(4), torch.arange(4)).pack(torch.tensor([0]))
    assert isinstance(packed, PackedGraphs)
    assert packed.features.shape == (1, 4) and packed.edge_index.shape == (2, 0)


def test_drop_last_leaves_the_smaller_batch_out():
    made = loader(graphs(), drop_last=True)
    assert [len(batch.labels) for batch in made.batches(0)] == [5] * 4 and len(made) == 4


@pytest.mark.gpu
def test_packing_on_a_gpu_gives_the_same_without_waiting_for_it():
    store = GraphStore.of(graphs(), torch.arange(23))
    chosen = torch.tensor([7, 0, 22, 7, 1])
    moved, there = store.to("cuda"), chosen.cuda()
    moved.pack(chosen, there)
    torch.cuda.set_sync_debug_mode("error")
    try:
        packed = moved.pack(chosen, there)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for one, other in zip(packed[:4], store.pack(chosen)[:4], strict=True):
        assert torch.equal(one.cpu(), other)
