import zipfile

import pytest
import torch

from zoo.data.download import DataError
from zoo.data.graphs import tudataset
from zoo.data.graphs.tudataset import TUDataset
from zoo.data.graphs.tudataset_files import read_graphs

# A triangle, a path of three and a single link, with which some lines begin; then copies of them.
LINKS = [[(1, 2), (2, 3), (3, 1)], [(1, 2), (2, 3)], [(1, 2)]]
NODES = [3, 3, 2]


def lines(copies=10):
    """The lines of each file of a data set, by part."""
    found = {"A": [], "graph_indicator": [], "graph_labels": [], "node_labels": []}
    found |= {"edge_labels": [], "node_attributes": [], "graph_attributes": []}
    start = 0
    for number in range(3 * copies):
        kind = number % 3
        for i, j in LINKS[kind]:
            for one, other in ((i, j), (j, i)):
                found["A"].append(f"{start + one}, {start + other}")
                found["edge_labels"].append(str(i % 2))
        for node in range(NODES[kind]):
            found["graph_indicator"].append(str(number + 1))
            found["node_labels"].append(str((4, 9)[node % 2]))
            found["node_attributes"].append(f"{node / 2}, -1.5, {number}")
        found["graph_labels"].append(str((-1, 1, 1)[kind]))
        found["graph_attributes"].append(f"{number / 4}")
        start += NODES[kind]
    return found


def write(folder, content, *, name="MADE", leave_out=()):
    folder.mkdir(parents=True, exist_ok=True)
    for part, entries in content.items():
        if part not in leave_out:
            (folder / f"{name}_{part}.txt").write_text("".join(f"{e}\n" for e in entries))


@pytest.fixture
def made(tmp_path):
    """Makes a data module over files of its own."""

    def make(*, leave_out=(), change=None, **options):
        content = lines()
        if change is not None:
            change(content)
        write(tmp_path / "made", content, leave_out=leave_out)
        module = TUDataset(None, folder=str(tmp_path / "made"), **options)
        module.setup()
        return module

    return make


ATTRIBUTES = ("edge_labels", "node_attributes", "graph_attributes")


def everything(module, split="test"):
    (packed,) = module.batches(split, 0)
    return packed


def test_graphs_are_read_with_labels_as_vectors(made):
    module = made(leave_out=ATTRIBUTES, num_folds=2, batch_size=100)
    names = {"num_classes": 2, "class_names": ["-1", "1"]}
    assert module.facts() == {"num_graphs": 30, "in_features": 2, "edge_features": None} | names
    counts = {split: module.loaders[split].num_samples for split in module.splits}
    assert counts == {"train": 14, "val": 1, "test": 15}
    packed = everything(module)
    for place, number in enumerate(module.loaders["test"].indices(0, 0)):
        kind = number % 3
        own = packed.batch == place
        assert int(own.sum()) == NODES[kind]
        assert packed.features[own].argmax(1).tolist() == [0, 1, 0][: NODES[kind]]
        assert packed.labels[place] == (kind > 0)
        start = int((packed.batch < place).sum())
        edges = packed.edge_index[:, own[packed.edge_index[1]]] - start + 1
        both = {*LINKS[kind], *((j, i) for i, j in LINKS[kind])}
        assert {tuple(edge) for edge in edges.T.tolist()} == both
    assert "graphs of" in module.notes[0] and "2 features of a node: labels" in module.notes[0]


@pytest.mark.parametrize(
    ("kind", "width"),
    [("auto", 2), ("labels", 2), ("attributes", 3), ("both", 5), ("degrees", 3)],
)
def test_features_of_nodes_are_what_was_asked_for(kind, width, made):
    packed = everything(made(node_features=kind, batch_size=100))
    assert packed.features.shape[1] == width and packed.features.dtype == torch.float32
    if kind in ("attributes", "both"):
        assert (packed.features[:, -2] == -1.5).all()


def test_without_labels_and_attributes_degrees_are_the_features(made):
    leave_out = ("node_labels", "node_attributes")
    for most, width in (("auto", 3), (1, 2), (5, 6)):
        packed = everything(made(leave_out=leave_out, max_degree=most, batch_size=100))
        degrees = packed.edge_index[1].bincount(minlength=len(packed.batch))
        assert packed.features.shape[1] == width
        assert torch.equal(packed.features.argmax(1), degrees.clamp(max=width - 1))


def test_edge_labels_stay_with_their_edges_and_repetitions_and_loops_go(made):
    def change(content):
        content["A"] += [content["A"][0], "1, 1"]
        content["edge_labels"] += ["7", "7"]

    packed = everything(made(change=change, batch_size=100))
    assert packed.edge_features.shape == (packed.edge_index.shape[1], 2)
    starts = torch.searchsorted(packed.batch, packed.batch[packed.edge_index[1]])
    lower = (packed.edge_index - starts).min(0).values + 1  # where a link begins, as drawn
    is_last_of_triangle = (packed.edge_index - starts).sum(0) == 2
    lower = torch.where(is_last_of_triangle, 3, lower)
    assert torch.equal(packed.edge_features.argmax(1), lower % 2)


def test_real_numbers_of_graphs_are_targets_of_a_regression(made):
    module = made(leave_out=("graph_labels",), batch_size=100)
    facts = module.facts()
    assert facts["out_features"] == 1 and "num_classes" not in facts
    assert "real numbers" in module.lacks()["num_classes"]
    packed = everything(module)
    numbers = torch.tensor(module.loaders["test"].indices(0, 0))
    assert torch.equal(packed.labels, numbers.unsqueeze(1) / 4)
    assert everything(made(target="attributes", batch_size=100)).labels.is_floating_point()


def test_folds_are_disjoint_complete_stratified_and_the_same_for_all(made):
    folds = [made(fold=fold, batch_size=7) for fold in range(10)]
    tests = [set(fold.loaders["test"].indices(0, 0)) for fold in folds]
    assert sorted(number for test in tests for number in test) == list(range(30))
    for fold, test in zip(folds, tests, strict=True):
        assert sum(number % 3 == 0 for number in test) == 1
        parts = [
            {g for b in range(len(loader)) for g in loader.indices(0, b)}
            for loader in fold.loaders.values()
        ]
        assert [len(part) for part in parts] == [24, 3, 3]
        assert set.union(*parts) == set(range(30))
    first, second = (set(fold.loaders["val"].indices(0, 0)) for fold in folds[:2])
    assert first != second


WRONG = {
    "an edge to a node that does not exist": (
        lambda c: c["A"].__setitem__(4, "3, 999"),
        r"MADE_A\.txt, line 5: the edge \(3, 999\) names a node that does not exist: "
        r"MADE_graph_indicator\.txt has those from 1 to 80",
    ),
    "an edge from node 0": (lambda c: c["A"].__setitem__(0, "0, 1"), r"line 1: the edge \(0, 1\)"),
    "an edge between graphs": (
        lambda c: c["A"].__setitem__(6, "4, 3"),
        r"line 7: the edge \(4, 3\) leads from graph 2 to graph 1: edges must stay within a graph",
    ),
    "one direction": (
        lambda c: (c["A"].pop(3), c["edge_labels"].pop()),
        r"MADE_A\.txt, line 3: the edge \(2, 3\) has none that leads back: .*directed=true",
    ),
    "no edges": (lambda c: c["A"].clear(), r"MADE_A\.txt has no edges: write `source, target`"),
    "another separator": (
        lambda c: c["A"].__setitem__(2, "2;3"),
        r"MADE_A\.txt, line 3: '2;3' is not 2 whole numbers with commas, as in '1, 2'",
    ),
    "blanks alone": (
        lambda c: c.__setitem__("A", [e.replace(",", " ") for e in c["A"]]),
        r"MADE_A\.txt, line 1: '1  2' is not 2 whole numbers with commas, as in '1, 2'",
    ),
    "fractions of nodes": (
        lambda c: c["A"].__setitem__(2, "2.5, 3"),
        r"MADE_A\.txt, line 3: '2\.5, 3' is not 2 whole numbers",
    ),
    "an empty line": (
        lambda c: c["graph_labels"].__setitem__(4, ""),
        r"MADE_graph_labels\.txt, line 5, is empty: write what is missing, or delete it",
    ),
    "a label too few": (
        lambda c: c["graph_labels"].pop(),
        r"MADE_graph_labels\.txt ends after line 29, but there are 30 graphs: write one for each",
    ),
    "a label too many": (
        lambda c: c["node_labels"].append("3"),
        r"MADE_node_labels\.txt, line 81: there are only 80 nodes: delete the rest",
    ),
    "edge labels of other edges": (
        lambda c: c["edge_labels"].pop(),
        r"MADE_edge_labels\.txt ends after line 119, but there are 120 edges",
    ),
    "a label that is a word": (
        lambda c: c["graph_labels"].__setitem__(1, "yes"),
        r"MADE_graph_labels\.txt, line 2: 'yes' is not one whole number, as in '1'",
    ),
    "two labels a graph": (
        lambda c: c.__setitem__("graph_labels", ["1, 2"] * 30),
        r"MADE_graph_labels\.txt has 2 numbers a line: write one, the class",
    ),
    "graphs in disorder": (
        lambda c: c["graph_indicator"].__setitem__(4, "1"),
        r"MADE_graph_indicator\.txt, line 5: graph 1 follows graph 2: number graphs from 1 on",
    ),
    "a graph left out": (
        lambda c: c.update(graph_indicator=[str(int(g) + (g > "2")) for g in c["graph_indicator"]]),
        r"MADE_graph_indicator\.txt, line 7: graph 4 follows graph 2",
    ),
    "no first graph": (
        lambda c: c.__setitem__("graph_indicator", ["2"] * 80),
        r"MADE_graph_indicator\.txt, line 1: graph 2 follows graph 0",
    ),
    "no nodes": (
        lambda c: c["graph_indicator"].clear(),
        r"MADE_graph_indicator\.txt is empty: write the graph of each node",
    ),
    "no number": (
        lambda c: c["node_attributes"].__setitem__(5, "1, nan, 2"),
        r"MADE_node_attributes\.txt, line 6: a number is not finite: write one that is",
    ),
    "attributes of two widths": (
        lambda c: c["node_attributes"].__setitem__(5, "1, 2"),
        r"MADE_node_attributes\.txt, line 6: '1, 2' is not 3 numbers with commas",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_files_are_told_with_file_and_line(what, made):
    change, message = WRONG[what]
    with pytest.raises(DataError, match=message):
        made(change=change)


@pytest.mark.parametrize(
    ("leave_out", "options", "message"),
    [
        (("graph_indicator",), {}, r"MADE_graph_indicator\.txt is missing: put the file there"),
        (
            ("graph_labels", "graph_attributes"),
            {},
            r"MADE_graph_labels\.txt is missing, and MADE_graph_attributes\.txt too",
        ),
        (("A",), {}, r"holds no file NAME_A\.txt: name a folder"),
        (
            ("node_labels",),
            {"node_features": "both"},
            r"MADE_node_labels\.txt is missing: .*node_features to other than both",
        ),
        (
            ("graph_attributes",),
            {"target": "attributes"},
            r"MADE_graph_attributes\.txt is missing: .*target to other than attributes",
        ),
        ((), {"num_folds": 31}, "holds 30 samples, too few for 31 folds: lower num_folds"),
        ((), {"val_fraction": 0.001}, "too few samples .* for val"),
    ],
)
def test_missing_files_are_told(leave_out, options, message, made):
    with pytest.raises(DataError, match=message):
        made(leave_out=leave_out, **options)


@pytest.mark.parametrize("kind", ["labels", "attributes", "both", "degrees"])
def test_other_graphs_are_read_as_those_of_the_run_were(kind, made, tmp_path):
    """Their labels, of which they have fewer, stand where they stood, and no classes are needed."""
    run = made(node_features=kind).resolved()
    later = TUDataset(None, folder="gone", **run)
    content = {part: entries[:] for part, entries in lines(1).items()}
    content["node_labels"] = ["9"] * 8
    write(tmp_path / "other", content, name="OTHER", leave_out=("graph_labels", "graph_attributes"))
    batch, names = later.read_inputs(tmp_path / "other")
    assert names == [{"graph": "1"}, {"graph": "2"}, {"graph": "3"}]
    assert batch.batch.tolist() == [0, 0, 0, 1, 1, 1, 2, 2] and len(batch.labels) == 3
    expected = {
        "labels": [[0.0, 1.0]] * 8,
        "attributes": [[float(x) for x in e.split(",")] for e in content["node_attributes"]],
        "degrees": torch.eye(3)[[2, 2, 2, 1, 2, 1, 1, 1]].tolist(),
    }
    both = [a + b for a, b in zip(expected["labels"], expected["attributes"], strict=True)]
    assert batch.features.tolist() == (expected | {"both": both})[kind]


def test_a_label_that_the_run_does_not_know_is_told(made, tmp_path):
    run = TUDataset(None, folder="gone", **made(node_features="labels").resolved())
    for content, message in (
        (["4"] * 6 + ["5", "4"], r"OTHER_node_labels\.txt, line 7: the label 5 is none .*\(4, 9\)"),
        (["4, 4"] * 8, r"OTHER_node_labels\.txt has 2 labels a line, not the 1 of node_kinds"),
    ):
        write(tmp_path / "other", lines(1) | {"node_labels": content}, name="OTHER")
        with pytest.raises(DataError, match=message):
            run.read_inputs(tmp_path / "other")


def test_directed_edges_are_taken_as_they_are(made):
    def change(content):
        content["A"], content["edge_labels"] = content["A"][::2], content["edge_labels"][::2]

    module = made(change=change, directed=True, batch_size=100)
    counts = [everything(module, split).edge_index.shape[1] for split in module.splits]
    assert sum(counts) == 10 * 6


def test_a_folder_that_is_none_or_holds_several_is_told(tmp_path):
    with pytest.raises(DataError, match="nowhere is not a folder: name one with TU text files"):
        TUDataset(None, folder="nowhere", root=str(tmp_path)).setup()
    write(tmp_path / "two", lines())
    write(tmp_path / "two", lines(), name="OTHER")
    with pytest.raises(DataError, match=r"two holds files of several data sets \(MADE, OTHER\)"):
        TUDataset(None, folder="two", root=str(tmp_path)).setup()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folder": "x"}, "one of name and folder must be given and the other null"),
        ({"name": None}, "not name=None and folder=None"),
        ({"name": "../x"}, r"name must be that of a data set, as in MUTAG, not '\.\./x'"),
        ({"fold": 10}, r"fold must be from 0 to 9 \(num_folds\), not 10"),
        ({"num_folds": 1}, "num_folds must be at least 2, not 1"),
        ({"max_degree": -1}, "max_degree must be at least 0, not -1"),
        ({"val_fraction": 0.0}, "val_fraction must be between 0 and 1"),
        ({"node_features": "x"}, "node_features must be one of auto, labels, .*, not 'x'"),
        ({"target": "x"}, "target must be auto, labels or attributes, not 'x'"),
    ],
)
def test_nonsense_is_refused_with_the_value(options, message):
    with pytest.raises(ValueError, match=message):
        TUDataset(**options)


def serve(web, content, *, inside="MADE/", name="MADE"):
    with zipfile.ZipFile(web.folder / f"{name}.zip", "w") as archive:
        for part, entries in content.items():
            archive.writestr(f"{inside}{name}_{part}.txt", "".join(f"{e}\n" for e in entries))
        archive.writestr("../outside.txt", "no")
        archive.writestr(f"{inside}README.txt", "yes")


def test_a_data_set_is_downloaded_once_and_unpacked_where_pyg_keeps_it(web, tmp_path, monkeypatch):
    serve(web, lines())
    monkeypatch.setattr(tudataset, "URL", f"{web.url}/")
    for _ in range(2):
        module = TUDataset("MADE", root=str(tmp_path / "data"))
        module.setup()
    assert web.requests == ["/MADE.zip"]
    files = {p.name for p in (tmp_path / "data" / "MADE" / "raw").iterdir()}
    assert files == {f"MADE_{part}.txt" for part in lines()}
    assert not list(tmp_path.rglob("outside.txt"))
    assert module.facts()["num_graphs"] == 30


def test_the_checksum_of_what_was_found_is_in_the_run(web, tmp_path, monkeypatch):
    serve(web, lines())
    monkeypatch.setattr(tudataset, "URL", f"{web.url}/")
    module = TUDataset("MADE", root=str(tmp_path))
    assert module.resolved() == {}
    module.setup()
    assert module.resolved()["node_kinds"] == [[4, 9]]
    again = TUDataset("MADE", root=str(tmp_path), **module.resolved())
    again.setup()
    path = tmp_path / "MADE" / "raw" / "MADE_graph_labels.txt"
    path.write_text(path.read_text().replace("-1", "2"))
    with pytest.raises(DataError, match="are not those of this run"):
        again.setup()


def test_failing_downloads_are_one_sentence(web, dead_url, tmp_path, monkeypatch):
    monkeypatch.setattr(tudataset, "URL", f"{dead_url}/")
    with pytest.raises(DataError, match=r"could not download .*MUTAG\.zip .*by hand"):
        TUDataset(root=str(tmp_path)).setup()
    monkeypatch.setattr(tudataset, "URL", f"{web.url}/")
    with pytest.raises(DataError, match=r"the server answered 404"):
        TUDataset("MUTANT", root=str(tmp_path)).setup()
    (web.folder / "BAD.zip").write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"BAD\.zip is damaged .*delete it, so that it is downl"):
        TUDataset("BAD", root=str(tmp_path)).setup()


def test_a_file_that_is_there_is_not_replaced(web, tmp_path, monkeypatch):
    serve(web, lines())
    monkeypatch.setattr(tudataset, "URL", f"{web.url}/")
    raw = tmp_path / "MADE" / "raw"
    raw.mkdir(parents=True)
    own = raw / "MADE_graph_labels.txt"
    own.write_text("0\n1\n" * 15)
    TUDataset("MADE", root=str(tmp_path)).setup()
    assert own.read_text() == "0\n1\n" * 15


SIZES = {  # graphs, nodes, directed edges, kinds of nodes
    "MUTAG": (188, 3371, 7442, 7),
    "PROTEINS": (1113, 43471, 162088, 3),
    "NCI1": (4110, 122747, 265506, 37),
}


@pytest.mark.data
@pytest.mark.parametrize("name", SIZES)
def test_real_data_sets_have_their_published_sizes(name, data_dir):
    if not (data_dir / name / "raw").is_dir():
        pytest.skip(f"no {name} in {data_dir}")
    found = read_graphs(data_dir / name / "raw", name)
    sizes = (len(found.graph_labels), len(found.batch), found.edge_index.shape[1])
    assert (*sizes, len(found.node_labels.unique())) == SIZES[name]


@pytest.mark.data
@pytest.mark.parity
@pytest.mark.parametrize("name", ["MUTAG", "PROTEINS"])
def test_real_data_sets_equal_torch_geometrics(name, data_dir, tmp_path):
    datasets = pytest.importorskip("torch_geometric.datasets")
    if not (data_dir / name / "raw").is_dir():
        pytest.skip(f"no {name} in {data_dir}")
    (tmp_path / name).mkdir()
    (tmp_path / name / "raw").symlink_to(data_dir / name / "raw")
    theirs = datasets.TUDataset(str(tmp_path), name)
    module = TUDataset(name, root=str(data_dir), batch_size=10_000)
    module.setup()
    for split in module.splits:
        (packed,) = module.batches(split, 0)
        start = 0
        for place, number in enumerate(module.loaders[split].indices(0, 0)):
            other = theirs[number]
            nodes = slice(start, start + other.num_nodes)
            assert torch.equal(packed.features[nodes], other.x)
            assert packed.labels[place] == other.y
            own = packed.batch[packed.edge_index[1]] == place
            edges = (packed.edge_index[:, own] - start).flip(0)  # theirs are sorted by source
            assert torch.equal(edges, other.edge_index)
            start += other.num_nodes
