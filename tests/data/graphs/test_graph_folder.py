import pytest
import torch

from zoo.data.download import DataError
from zoo.data.graphs.batches import GraphBatch
from zoo.data.graphs.graph_folder import GraphFolder

NODES = [
    "id,size,age,label,split",
    "ann,1,10,red,train",
    "bob,3,10,blue,train",
    "cem,5,10,red,val",
    "07,7,10,,",
    "7,9,10,blue,test",
]
EDGES = ["source,target", "ann,bob", "cem,ann", "07,7"]


def folder(tmp_path, nodes=NODES, edges=EDGES, suffix="csv"):
    for name, lines in (("nodes", nodes), ("edges", edges)):
        text = "".join(f"{line}\n" for line in lines)
        (tmp_path / f"{name}.{suffix}").write_text(text, "utf-8")
    return str(tmp_path)


def made(path, **arguments):
    module = GraphFolder(path, **arguments)
    module.setup()
    return module


def graph(module, split="train"):
    (batch,) = module.batches(split, 0)
    assert isinstance(batch, GraphBatch)
    return batch


def pairs(batch):
    return [tuple(edge) for edge in batch.edge_index.T.tolist()]


def test_two_tables_are_a_graph_with_the_splits_and_classes_that_they_name(tmp_path):
    module = made(folder(tmp_path), mean=None, std=None)
    batch = graph(module)
    assert batch.features.tolist() == [[1, 10], [3, 10], [5, 10], [7, 10], [9, 10]]
    assert pairs(batch) == [(1, 0), (2, 0), (0, 1), (0, 2), (4, 3), (3, 4)]
    assert batch.edge_weight is None
    assert batch.labels.tolist() == [1, 0, 1, -1, 0]
    masks = {split: module.loaders[split].indices(0, 0) for split in module.splits}
    assert masks == {"train": [0, 1], "val": [2], "test": [4]}
    sizes = {"num_nodes": 5, "in_features": 2, "num_classes": 2}
    assert module.facts() == sizes | {"class_names": ["blue", "red"]}
    assert module.notes == [
        f"graph of {tmp_path}: 5 nodes, 3 undirected edges, features size, age; "
        "2 train, 1 val, 1 test; 1 without a label"
    ]


def test_features_are_standardized_by_the_training_nodes_alone(tmp_path):
    module = made(folder(tmp_path))
    # Sizes of 1 and 3: mean 2, deviation 1. An age that is the same everywhere becomes 0.
    assert graph(module).features.tolist() == [[-1, 0], [1, 0], [3, 0], [5, 0], [7, 0]]
    assert module.resolved() == {
        "features": ["size", "age"],
        "class_names": ["blue", "red"],
        "mean": [2, 10],
        "std": [1, 1],
        "weight": None,
        "split": "split",
    }


def test_directed_edges_lead_one_way_and_weights_stay_with_their_edges(tmp_path):
    edges = ["weight,target,source", "2,ann,bob", "0.5,ann,cem", "3,bob,ann"]
    batch = graph(made(folder(tmp_path, edges=edges), directed=True))
    assert pairs(batch) == [(1, 0), (2, 0), (0, 1)]
    assert batch.edge_weight.tolist() == [2, 0.5, 3]
    assert graph(made(str(tmp_path), directed=True, weight=None)).edge_weight is None
    undirected = ["source,target,w", "ann,bob,2", "cem,ann,0.5", "ann,cem,0.5", "bob,ann,2"]
    batch = graph(made(folder(tmp_path, edges=undirected), weight="w"))
    assert dict(zip(pairs(batch), batch.edge_weight.tolist(), strict=True)) == {
        (1, 0): 2,
        (0, 1): 2,
        (2, 0): 0.5,
        (0, 2): 0.5,
    }


def test_self_loops_and_repeated_edges_are_left_out_and_said(tmp_path):
    edges = [*EDGES, "ann,ann", "ann,bob", "7,7", "7,7"]
    module = made(folder(tmp_path, edges=edges))
    assert pairs(graph(module)) == [(1, 0), (2, 0), (0, 1), (0, 2), (4, 3), (3, 4)]
    assert [note.partition(": ")[2] for note in module.notes[1:]] == [
        "3 self-loops are left out",
        "1 lines repeat an edge, which counts once",
    ]


def test_without_a_column_of_splits_nodes_with_labels_are_divided_by_seed_and_class(tmp_path):
    nodes = ["id,x,label", *(f"{i},{i},{'ab'[i % 2] if i < 40 else ''}" for i in range(50))]
    path = folder(tmp_path, nodes, ["source,target", "0,1"])

    def parts(**arguments):
        module = made(path, **arguments)
        return {split: module.loaders[split].indices(0, 0) for split in module.splits}

    found = parts()
    assert {split: len(part) for split, part in found.items()} == {
        "train": 28,
        "val": 6,
        "test": 6,
    }
    assert sorted(i for part in found.values() for i in part) == list(range(40))
    assert sum(i % 2 for i in found["train"]) == 14
    assert parts() == found != parts(split_seed=1)
    assert list(parts(test_fraction=0.0)) == ["train", "val"]
    assert parts(split=None) == found


def test_names_of_files_and_columns_are_free_and_others_are_not_read(tmp_path):
    nodes = [
        "kind\tname\tpart\tx\tnote",
        "u\ta\ttrain\t1\tlong",
        "v\tb\ttrain\t2\t",
        "u\tc\tval\t3\t",
    ]
    edges = ["to\tfrom", "a\tb"]
    module = made(
        folder(tmp_path, nodes, edges, "tsv"),
        nodes="nodes.tsv",
        edges="edges.tsv",
        id="name",
        label="kind",
        split="part",
        source="from",
        target="to",
        features=("x",),
        mean=None,
        std=None,
        directed=True,
    )
    assert module.splits == ("train", "val")
    assert graph(module).features.tolist() == [[1], [2], [3]]
    assert pairs(graph(module)) == [(1, 0)]


def test_a_graph_without_features_has_its_degrees(tmp_path):
    nodes = [",".join(line.split(",")[0:1] + line.split(",")[3:]) for line in NODES]
    module = made(folder(tmp_path, nodes), mean=None, std=None)
    degrees = torch.tensor([[2.0], [1.0], [1.0], [1.0], [1.0]])
    torch.testing.assert_close(graph(module).features, degrees.log1p())
    assert module.facts()["in_features"] == 1
    assert GraphFolder(str(tmp_path), **module.resolved()).read_inputs(tmp_path)


def test_another_graph_is_read_as_training_read_its_own(tmp_path):
    module = made(folder(tmp_path))
    again = GraphFolder(str(tmp_path), **module.resolved())
    other = tmp_path / "other"
    other.mkdir()
    folder(other, ["age,extra,id,size", "10,?,new,2", "11,?,old,4"], ["source,target", "old,new"])
    for path in (other, other / "nodes.csv"):
        batch, names = again.read_inputs(path)
        assert names == [{"id": "new"}, {"id": "old"}]
        assert batch.features.tolist() == [[0, 0], [2, 1]]
        assert pairs(batch) == [(1, 0), (0, 1)]
    batch, _ = again.read_inputs(tmp_path)
    assert torch.equal(batch.features, graph(module).features)
    assert torch.equal(batch.edge_index, graph(module).edge_index)


def changed(lines, number, line):
    """The same lines but for one."""
    return [line if i == number - 1 else old for i, old in enumerate(lines)]


BAD_NODES = [
    ([], "nodes.csv, line 1: there must be one column 'id', not 0; the columns are none"),
    (NODES[:1], "nodes.csv holds no node below its header"),
    (
        changed(NODES, 1, "id,size,age,kind,split"),
        "line 1: there must be one column 'label', not 0",
    ),
    (
        [line.replace(",", ";") for line in NODES],
        "line 1: there must be one column 'id', .* separated by ';': separate them by ','",
    ),
    (
        [line.replace(",", "\t") for line in NODES],
        r"line 1: .* separated by '\\t': separate them by ',' \(or by tabs, in a file",
    ),
    (changed(NODES, 4, "ann,5,10,red,val"), "line 4: the node 'ann' is there already, in line 2"),
    (changed(NODES, 4, ",5,10,red,val"), "line 4: the column 'id' is empty"),
    (changed(NODES, 4, "cem,5,red,val"), "line 4: there are 4 columns, but 5 in the header"),
    (
        changed(NODES, 4, "cem,big,10,red,val"),
        r"line 4: the column 'size' has 'big', which is not a finite number: .* data.features=",
    ),
    (changed(NODES, 4, "cem,nan,10,red,val"), "line 4: the column 'size' has 'nan', which is not"),
    (changed(NODES, 4, "cem,,10,red,val"), "line 4: the column 'size' has '', which is not"),
    (changed(NODES, 2, "ann,1,10,,train"), "line 2: the train node 'ann' has no label: write one"),
    (changed(NODES, 4, "cem,5,10,,val"), "line 4: the val node 'cem' has no label"),
    (
        changed(NODES, 4, "cem,5,10,red,valid"),
        "line 4: the column 'split' has 'valid': it must say",
    ),
    (changed(NODES, 4, "cem,5,10,red,"), "no node is in val by the column 'split'"),
    (changed(NODES, 4, "cem,5,10,green,val"), r"line 4: the label 'green' .* \(blue, red\)"),
    (changed(NODES, 3, "bob,3,10,red,train"), "all training nodes have the label 'red'"),
]
BAD_EDGES = [
    (["source,target"], "edges.csv holds no edge between two different nodes"),
    (["source,target", "ann,ann"], "edges.csv holds no edge between two different nodes"),
    (["from,target", "ann,bob"], "edges.csv, line 1: there must be one column 'source', not 0"),
    (["source target", "ann bob"], "edges.csv, line 1: there must be one column 'source', not 0"),
    ([*EDGES, "ann,dan"], r"edges.csv, line 5: the node 'dan' is not in .*nodes.csv: add it"),
    (
        [*EDGES, "bob,ann"],
        "line 3: the edge from 'cem' to 'ann' is listed one way, but that of line 2 is listed back "
        "in line 5, .* set data.directed=true, or list",
    ),
    (["source,target,weight", "ann,bob,?"], "line 2: the column 'weight' has '[?]', .* not a fin"),
    (["source,target,weight", "ann,bob,-1"], "line 2: .* has '-1': a weight must be above 0"),
    (
        ["source,target,weight", "ann,bob,1", "bob,ann,2"],
        "line 3: the edge between 'bob' and 'ann' has the weight 2, but 1 in line 2",
    ),
    (["source,target", '"ann,bob'], "edges.csv, line 2: not a valid table"),
]


@pytest.mark.parametrize(
    ("tables", "message"),
    [({"nodes": n}, m) for n, m in BAD_NODES] + [({"edges": e}, m) for e, m in BAD_EDGES],
)
def test_bad_tables_are_refused_in_one_sentence_with_file_line_and_fix(tmp_path, tables, message):
    with pytest.raises(DataError, match=message) as caught:
        made(folder(tmp_path, **tables))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"val_fraction": 0.0}, ValueError, "val_fraction must be between 0 and 1, not 0.0"),
        ({"mean": None}, ValueError, "std must be null if mean is, .* not 'auto'"),
        ({"label": "id"}, ValueError, "label must be another column than id and split, not 'id'"),
        ({"features": ("height",)}, DataError, "line 1: there must be one column 'height', not 0"),
        ({"mean": (1.0,)}, DataError, "data.mean must have a number for each of the 2 features"),
        ({"nodes": "none.csv"}, DataError, "none.csv cannot be read"),
        ({"split": "fold"}, DataError, "line 1: there must be one column 'fold', not 0"),
        ({"weight": "w"}, DataError, "edges.csv, line 1: there must be one column 'w', not 0"),
    ],
)
def test_bad_arguments_are_refused_with_the_value(tmp_path, arguments, error, message):
    with pytest.raises(error, match=message):
        made(folder(tmp_path), **arguments)
