"""A graph of one's own: train, then predict nodes that the network has never seen."""

import csv
import random

import pytest

import evaluate
import train

WORDS = (
    *("experiment=gcn_graph_folder", "data.folder=mine", "trainer.epochs=40"),
    *("trainer.device=cpu", "logger=off"),
)


def write(folder, ids, kinds, *, labelled):
    """A graph in which one links mostly with one's own kind; the features say a little."""
    choice = random.Random(len(ids))
    folder.mkdir()
    rows = [
        f"{name},{(kind == 'red') + choice.gauss(0, 0.7):.3f}" + (f",{kind}" if labelled else "")
        for name, kind in zip(ids, kinds, strict=True)
    ]
    head = "id,warmth" + (",label" if labelled else "")
    (folder / "nodes.csv").write_text("\n".join([head, *rows, ""]))
    same = {kind: [i for i, k in zip(ids, kinds, strict=True) if k == kind] for kind in set(kinds)}
    ends = [(i, choice.choice(same[k])) for i, k in zip(ids, kinds, strict=True) for _ in "123"]
    edges = {tuple(sorted(pair)) for pair in ends}
    lines = [f"{a},{b}" for a, b in sorted(edges) if a != b]
    (folder / "edges.csv").write_text("\n".join(["source,target", *lines, ""]))


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kinds = ["red", "blue"] * 40
    write(tmp_path / "mine", [f"n{i}" for i in range(80)], kinds, labelled=True)
    write(tmp_path / "new", [f"m{i}" for i in range(30)], kinds[:30], labelled=False)
    return tmp_path


def test_nodes_that_training_has_not_seen_are_classified(here, capsys):
    assert train.main(WORDS) == 0
    out = capsys.readouterr().out
    assert "graph of mine: 80 nodes, " in out and "predict=<folder>" in out
    (run,) = here.glob("runs/*/*")
    (here / "mine").rename(here / "gone")  # a prediction needs the run folder alone
    assert evaluate.main([f"run={run}", "predict=new", "out=found.csv"]) == 0
    assert "30 predictions\nfound.csv\n" in capsys.readouterr().out
    with open("found.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [f"m{i}" for i in range(30)]
    right = [row["class"] == ("red", "blue")[i % 2] for i, row in enumerate(rows)]
    assert sum(right) >= 24
    assert all(0.5 <= float(row["probability"]) <= 1 for row in rows)
    assert evaluate.main([f"run={run}", "predict=new", "out=found.csv"]) == 2
    assert "out=found.csv: already exists" in capsys.readouterr().err


def test_what_cannot_be_predicted_is_one_line(here, capsys):
    assert train.main(WORDS) == 0
    (run,) = here.glob("runs/*/*")
    capsys.readouterr()
    text = (here / "new" / "edges.csv").read_text()
    (here / "new" / "edges.csv").write_text(text + "m1,stranger\n")
    for words, said in (
        (["predict=new"], "predict: new/edges.csv, line "),
        (["predict=nowhere"], "predict=nowhere: there is no such file or folder"),
        (["predict=runs"], "predict: runs/nodes.csv cannot be read"),
        (["predict=new", "tta=flip"], "tta=flip: this run does not classify images"),
    ):
        assert evaluate.main([f"run={run}", *words]) == 2
        err = capsys.readouterr().err
        assert said in err and err.count("\n") == 1
    assert not (run / "predictions.csv").exists()


def test_a_bad_table_leaves_no_run_behind(here, capsys):
    with open(here / "mine" / "nodes.csv", "a") as file:
        file.write("n1,0.5,red\n")
    assert train.main(WORDS) == 1
    err = capsys.readouterr().err
    assert "mine/nodes.csv, line 82: the node 'n1' is there already, in line 3" in err
    assert err.count("\n") == 1 and not (here / "runs").exists()


def test_links_are_predicted_for_a_table_of_pairs(here, capsys):
    words = ("experiment=link_prediction_cora", "data=karate_links", "trainer.epochs=60")
    assert train.main((*words, "trainer.device=cpu", "logger=off")) == 0
    assert "predict=<pairs.csv>" in capsys.readouterr().out
    (run,) = here.glob("runs/*/*")
    (here / "pairs.csv").write_text("target,source\n33,32\n33,0\n16,26\n")
    assert evaluate.main([f"run={run}", "predict=pairs.csv", "out=found.csv"]) == 0
    with open("found.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["source"], row["target"]) for row in rows] == [
        ("32", "33"),
        ("0", "33"),
        ("26", "16"),
    ]
    heads, _, strangers = (float(row["value"]) for row in rows)
    assert 0 <= strangers < heads <= 1
    capsys.readouterr()
    (here / "pairs.csv").write_text("source,target\n0,34\n")
    assert evaluate.main([f"run={run}", "predict=pairs.csv"]) == 2
    err = capsys.readouterr().err
    assert "predict: pairs.csv, line 2: there is no node '34' in the graph" in err
    assert err.count("\n") == 1
