"""evaluate.py with a classifier: its report, augmentation at test time, and predictions."""

import csv
import json
import shutil

import pytest
import torch
from PIL import Image

import evaluate
import train
import zoo
from zoo.app import evaluate as program

WORDS = (
    "experiment=lenet_digits",
    "data.image_size=16",
    "data.augment=false",
    "trainer.epochs=2",
    "task.top_k=[3]",
    "logger=off",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of a network that takes images of any size from 12 pixels up."""
    place = tmp_path_factory.mktemp("classes")
    package = place / "own_classifier.py"
    package.write_text(
        "from torch import nn\n"
        "def net(num_classes: int) -> nn.Module:\n"
        "    return nn.Sequential(nn.Conv2d(1, 8, 5), nn.ReLU(), nn.AdaptiveAvgPool2d(2),\n"
        "                         nn.Flatten(), nn.Linear(32, num_classes))\n"
    )
    patch = pytest.MonkeyPatch()
    patch.syspath_prepend(str(place))
    (place / "configs" / "model").mkdir(parents=True)
    text = "_target_: own_classifier.net\nnum_classes: auto\n"
    (place / "configs" / "model" / "net.yaml").write_text(text)
    words = ("--config-dir", str(place / "configs"), "trusted=[own_classifier]", "model=net")
    code = train.main([*words, *WORDS, f"paths.runs_dir={place}/runs"])
    assert code == 0
    (folder,) = (place / "runs").glob("*/*")
    yield folder
    patch.undo()


@pytest.fixture
def here(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    return tmp_path


def judge(run, *words):
    return evaluate.main([f"run={run}", "trusted=[own_classifier]", *words])


def stored(run, name):
    return json.loads((run / name).read_text())


def test_record_has_the_metrics_and_a_report_of_every_class(run, here, capsys):
    assert judge(run) == 0
    found = stored(run, "evaluation-test.json")
    metrics = ["loss", "accuracy", "top3_accuracy", "calibration_error"]
    assert list(found) == ["split", "step", *metrics, "classes"]
    assert found["accuracy"] <= found["top3_accuracy"] <= 1
    assert [row["class"] for row in found["classes"]] == [*"0123456789", "macro mean"]
    assert all(
        list(row) == ["class", "precision", "recall", "f1", "support"] for row in found["classes"]
    )
    results = stored(run, "results.json")["test"]
    assert {name: found[name] for name in results} == results
    hits = sum(row["recall"] * row["support"] for row in found["classes"][:-1])
    assert hits / found["classes"][-1]["support"] == pytest.approx(found["accuracy"])


def test_report_is_printed(run, here, capsys):
    assert judge(run) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("test, weights of step ")
    table = [line.split("|")[1:-1] for line in lines if line.startswith("|")]
    assert [cell.strip() for cell in table[0]] == ["class", "precision", "recall", "f1", "support"]
    assert len(table) == 2 + 10 + 1
    assert table[-1][0].strip() == "macro mean"
    assert lines[-1].endswith("evaluation-test.json")


def test_long_report_is_printed_without_its_rows(run, here, capsys, monkeypatch):
    monkeypatch.setattr(program, "LONGEST", 5)
    assert judge(run) == 0
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(table) == 3 and "macro mean" in table[-1]
    assert len(stored(run, "evaluation-test.json")["classes"]) == 11


def mean_accuracy(run, views):
    model, data = zoo.load(run, trusted=["own_classifier"])
    data.setup()
    hits = count = 0
    with torch.no_grad():
        for images, targets in data.batches("test", 0):
            p = sum(model(view).softmax(1) for view in views(images))
            hits += (p.argmax(1) == targets).sum().item()
            count += len(targets)
    return hits / count


def test_mirrored_images_are_taken_into_account(run, here, capsys):
    assert judge(run) == 0
    plain = stored(run, "evaluation-test.json")
    assert judge(run, "tta=flip") == 0
    assert "tta=flip" in capsys.readouterr().out
    found = stored(run, "evaluation-test-flip.json")
    assert found["tta"] == "flip" and "crop" not in found
    assert found["loss"] != plain["loss"]
    assert found["accuracy"] == pytest.approx(mean_accuracy(run, lambda x: (x, x.flip(3))))
    assert stored(run, "evaluation-test.json") == plain


@pytest.mark.parametrize(("words", "size", "name"), [((), 14, ""), (("crop=12",), 12, "-12")])
def test_ten_crops_are_taken_into_account(words, size, name, run, here):
    from torchvision.transforms.v2.functional import ten_crop

    assert judge(run, "tta=ten_crop", "split=val", *words) == 0
    found = stored(run, f"evaluation-val-ten_crop{name}.json")
    assert found["tta"] == "ten_crop" and found.get("crop") == (size if words else None)
    assert judge(run, "tta=ten_crop", *words) == 0
    found = stored(run, f"evaluation-test-ten_crop{name}.json")
    assert found["accuracy"] == pytest.approx(mean_accuracy(run, lambda x: ten_crop(x, size)))


def draw(folder, names):
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (20, 20), 20 * number).save(path)


def test_classes_of_images_are_a_table(run, here, capsys):
    draw(here / "in", ["a.png", "b/c.png"])
    tables = {}
    for word in ("tta=flip", "tta=ten_crop", None):
        file = here / f"{word}.csv"
        assert judge(run, "predict=in", f"out={file}", *([word] if word else [])) == 0
        with open(file, newline="", encoding="utf-8") as file:
            tables[word] = list(csv.DictReader(file))
    for rows in tables.values():
        assert [row["path"] for row in rows] == ["in/a.png", "in/b/c.png"]
        assert all(0 < float(row["probability"]) <= 1 for row in rows)
    assert "2 predictions" in capsys.readouterr().out
    assert {p.name for p in here.iterdir()} == {"in", *(f"{word}.csv" for word in tables)}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tta=flips"], "tta=flips: must be one of flip, flip_shift, ten_crop"),
        (["tta=flip", "crop=3"], "crop=3: goes with tta=ten_crop"),
        (["crop=3"], "crop=3: goes with tta=ten_crop"),
        (["tta=ten_crop", "crop=big"], "crop=big: must be a number of pixels"),
        (["tta=ten_crop", "crop=17"], "crop=17: must be at most the images' 16x16"),
        (["tta=ten_crop", "crop=3"], "does not take images of 3x3 pixels"),
        (["tta="], "tta=: has no value"),
        (["predict=nowhere"], "predict=nowhere: there is no such file or folder"),
        (["predict=text.txt"], "text.txt cannot be read as an image"),
        (["predict=."], "holds no image"),
        (["predict=text.txt", "split=val"], "split and predict exclude each other"),
        (["out=x.csv"], "out goes with predict="),
    ],
)
def test_wrong_words_are_refused_and_leave_nothing_behind(words, said, run, here, capsys):
    (here / "text.txt").write_text("text")
    before = sorted(run.iterdir())
    assert judge(run, *words) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1
    assert sorted(run.iterdir()) == before
    assert [p.name for p in here.iterdir()] == ["text.txt"]


def test_run_that_is_no_classification_is_told_so(tmp_path, capsys):
    words = ("experiment=linear_diabetes", "trainer.epochs=1", "logger=off")
    assert train.main([*words, f"paths.runs_dir={tmp_path}/runs"]) == 0
    (folder,) = (tmp_path / "runs").glob("*/*")
    draw(tmp_path, ["a.png"])
    assert evaluate.main([f"run={folder}"]) == 0
    capsys.readouterr()
    assert evaluate.main([f"run={folder}", "tta=flip"]) == 2
    assert "tta=flip: this run does not classify images" in capsys.readouterr().err
    assert evaluate.main([f"run={folder}", f"predict={tmp_path}/a.png"]) == 2
    assert "Diabetes cannot prepare an image for this run" in capsys.readouterr().err
    shutil.rmtree(folder)
