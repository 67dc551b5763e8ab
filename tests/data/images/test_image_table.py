"""Images by a table: classes, labels or numbers, from the table to predictions."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image

import evaluate
import train
from zoo.data.download import DataError
from zoo.data.images.image_table import ImageTable

COLOURS = ("red", "green", "blue")


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """60 images whose channels are bright or dark, and a table of which are bright."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    generator = np.random.default_rng(0)
    rows = []
    for number in range(60):
        has = [number >> place & 1 for place in range(3)]
        pixels = generator.integers(0, 40, (8, 8, 3)) + 180 * np.array(has)
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "photos" / f"{number:02}.png")
        split = ("train", "val", "test", "train")[number % 4]
        kind = "bright" if sum(has) > 1 else "dark"
        rows.append([f"{number:02}.png", kind, *has, 0.5 * sum(has) + 0.25, split])
    return write(tmp_path / "labels.csv", rows)


def write(path, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["file", "kind", *COLOURS, "light", "split"], *rows])
    return path


def module(path, target, **changes):
    settings = {"folder": "photos", "image_size": 8, "batch_size": 7, "num_workers": 0}
    return ImageTable(str(path), target, **(settings | changes))


def all_of(data, split):
    data.setup()
    return [torch.cat(part) for part in zip(*data.batches(split, 0), strict=True)]


def bright(images):
    """Which channels are bright, of normalised images."""
    return (images.mean((2, 3)) > 0).float()


@pytest.mark.parametrize("in_memory", [True, False])
def test_labels_are_those_of_the_images_however_they_are_read(pictures, in_memory):
    data = module(pictures, COLOURS, in_memory=in_memory)
    for split in data.splits:
        images, labels = all_of(data, split)
        assert labels.dtype == torch.float32 and torch.equal(labels, bright(images))
    assert data.target_kind == "labels"
    facts = data.facts()
    assert (facts["num_classes"], facts["class_names"]) == (3, list(COLOURS))
    assert "task=multi_label_classification" in data.lacks()["out_features"]


def test_classes_are_divided_in_proportion(pictures):
    data = module(pictures, "kind")
    shares = []
    for split in ("train", "val", "test"):
        images, classes = all_of(data, split)
        assert torch.equal(classes, (bright(images).sum(1) <= 1).long())  # bright, dark
        shares.append(classes.double().mean().item())
    assert max(shares) - min(shares) < 0.12
    assert data.facts()["class_names"] == ["bright", "dark"]
    assert "classes in train: bright 20, dark 22" in data.notes[0]


def test_numbers_keep_their_units(pictures):
    data = module(pictures, "light")
    images, light = all_of(data, "test")
    assert torch.equal(light, 0.5 * bright(images).sum(1, keepdim=True) + 0.25)
    assert data.facts()["out_features"] == 1 and "num_classes" not in data.facts()
    assert "task=regression" in data.lacks()["num_classes"]


def test_a_column_divides_the_images(pictures):
    data = module(pictures, "kind", split="split", batch_size=60)
    sizes = [len(all_of(data, split)[1]) for split in data.splits]
    assert data.splits == ("train", "val", "test") and sizes == [30, 15, 15]


def test_folds_are_disjoint_and_hold_every_image(pictures):
    seen = []
    for fold in range(5):
        data = module(pictures, "kind", fold=fold, num_folds=5)
        data.setup()
        seen += [int(path[-6:-4]) for path, _ in data._samples()["test"]]
    assert sorted(seen) == list(range(60))


def test_from_a_table_to_predictions(pictures, tmp_path, capsys):
    words = (
        *("data=image_table", f"data.path={pictures}", "data.folder=photos", "data.image_size=8"),
        *("data.batch_size=8", "task=multi_label_classification", "model=mlp", "optimizer=adam"),
        *("data.target=[red,green,blue]", "trainer.epochs=20", "logger=off", "data.num_workers=0"),
        f"paths.runs_dir={tmp_path / 'runs'}",
    )
    assert train.main(words) == 0
    (run,) = tmp_path.glob("runs/*/*")
    assert evaluate.main([f"run={run}", "predict=photos", "out=found.csv"]) == 0
    with open("found.csv") as file:
        found = list(csv.DictReader(file))
    for row in found:
        number = int(row["path"][-6:-4])
        expected = [name for place, name in enumerate(COLOURS) if number >> place & 1]
        assert row["labels"] == "; ".join(expected)
        assert all((float(row[name]) > 0.5) == (name in expected) for name in COLOURS)
    assert evaluate.main([f"run={run}", "threshold=best"]) == 0
    assert "green keeps 0.5: a threshold needs samples of both" in capsys.readouterr().out


def test_the_task_that_fits_is_named(pictures, tmp_path, capsys):
    words = ("data=image_table", f"data.path={pictures}", "data.folder=photos", "model=mlp")
    words += ("logger=off", f"paths.runs_dir={tmp_path}", "data.image_size=8")
    assert train.main((*words, "data.target=light", "task=classification")) == 2
    assert "the targets are numbers: set task=regression" in capsys.readouterr().err
    assert train.main((*words, "data.target=[red,blue]", "task=classification")) != 0
    assert "task=multi_label_classification" in capsys.readouterr().err


def changed(path, line, column, text):
    rows = [row.split(",") for row in path.read_text().splitlines()]
    rows[line - 1][column] = text
    path.write_text("\n".join(",".join(row) for row in rows) + "\n")


@pytest.mark.parametrize(
    ("line", "column", "text", "target", "message"),
    [
        (5, 0, "99.png", "kind", "line 5: there is no image photos/99.png"),
        (6, 1, "", "kind", "line 6: the column 'kind' is empty"),
        (7, 2, "2", COLOURS, "line 7: the label 'red' must be 0 or 1, not 2"),
        (8, 5, "much", "light", "line 8: the column 'light' has 'much'"),
        (9, 6, "dev", "kind", "line 9: the column 'split' has 'dev'"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(pictures, line, column, text, target, message):
    changed(pictures, line, column, text)
    kind = {"kind": "classes", COLOURS: "labels", "light": "numbers"}[target]
    with pytest.raises(DataError) as raised:
        module(pictures, target, target_kind=kind, split="split").setup()
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": ("red", "red")}, "must be different columns"),
        ({"target_kind": "boxes"}, "target_kind must be auto, classes, labels or numbers"),
        ({"split": "split", "fold": 2}, "fold must be null where the column 'split' divides"),
        ({"in_channels": 2}, "in_channels must be 1 or 3"),
    ],
)
def test_wrong_arguments_are_refused(pictures, options, message):
    with pytest.raises(ValueError, match=message):
        module(pictures, **({"target": "kind"} | options))


def test_labels_cannot_be_mixed_and_one_class_not_told(pictures):
    with pytest.raises(DataError, match=r"set\s+data.mixup=0"):
        module(pictures, COLOURS, mixup=0.2).setup()
    with pytest.raises(DataError, match="classes are told by one column"):
        module(pictures, COLOURS, target_kind="classes").setup()
    rows = [row.replace("dark", "bright") for row in pictures.read_text().splitlines()]
    pictures.write_text("\n".join(rows) + "\n")
    with pytest.raises(DataError, match="there must be two or more"):
        module(pictures, "kind").setup()
