"""evaluate.py with a classifier of images that are changed: attacks, corruptions."""

import json

import pytest
import torch

import evaluate
import train
import zoo
from zoo.inference.attacks import Attack, Pixels


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("robustness")
    words = ("experiment=lenet_digits", "data.image_size=16", "data.augment=false")
    more = ("trainer.epochs=4", "logger=off", "trainer.device=cpu", f"paths.runs_dir={place}")
    assert train.main([*words, *more]) == 0
    (folder,) = place.glob("*/*")
    return folder


@pytest.fixture
def judge(run, capsys):
    def judge(*words):
        capsys.readouterr()
        code = evaluate.main([f"run={run}", *words])
        return code, capsys.readouterr()

    return judge


def rows(run, name):
    return json.loads((run / f"evaluation-{name}.json").read_text())["table"]


def test_accuracy_never_rises_with_eps_and_begins_where_the_plain_one_is(run, judge):
    for kind in ("fgsm", "pgd"):
        code, said = judge(f"attack={kind}", "eps=0,2/255,8/255,0.1,0.3")
        assert code == 0 and f"evaluation-test-{kind}.json" in said.out
        assert "| 8/255 |" in said.out
        found = rows(run, f"test-{kind}")
        assert [row["eps"] for row in found] == ["0", "2/255", "8/255", "0.1", "0.3"]
        assert found[2]["value"] == 8 / 255
        accuracies = [row["accuracy"] for row in found]
        plain = json.loads((run / "results.json").read_text())["test"]
        assert accuracies[0] == plain["accuracy"]
        assert found[0]["loss"] == pytest.approx(plain["loss"], rel=1e-5)
        assert accuracies == sorted(accuracies, reverse=True) and accuracies[-1] < 0.1


def test_row_is_that_of_the_attack_in_python(run, judge):
    words = ("attack=bim", "eps=8/255", "steps=3", "step_size=4/255", "target=least_likely")
    assert judge(*words, "split=val")[0] == 0
    (row,) = rows(run, "val-bim-least_likely")
    model, data = zoo.load(run)
    data.setup()
    attack = Attack("bim", 8 / 255, steps=3, step_size=4 / 255, goal="least_likely")
    pixels, hits, count = Pixels(data.normalize.mean, data.normalize.std), 0, 0
    for images, classes in data.batches("val", 0):
        with torch.no_grad():
            guesses = model(attack(model, images, classes, pixels)).argmax(1)
        hits, count = hits + (guesses == classes).sum().item(), count + len(classes)
    assert row["accuracy"] == hits / count


def test_seed_of_the_start_is_the_users(run, judge):
    losses = []
    for seed in (0, 1, 0):
        assert judge("attack=pgd", "eps=0.05", "steps=1", f"seed={seed}")[0] == 0
        losses.append(rows(run, "test-pgd")[0]["loss"])
    assert losses[0] == losses[2] != losses[1]


def test_corruptions_begin_with_the_plain_images_and_do_harm(run, judge):
    code, said = judge("corrupt=all", "severity=0,1,5")
    assert code == 0 and "| contrast   |        5 |" in said.out
    found = rows(run, "test-corrupt")
    kinds = ["noise", "blur", "contrast", "jpeg"]
    assert [(row["corruption"], row["severity"]) for row in found] == [
        (kind, severity) for kind in kinds for severity in (0, 1, 5)
    ]
    plain = json.loads((run / "results.json").read_text())["test"]["accuracy"]
    assert {row["accuracy"] for row in found if row["severity"] == 0} == {plain}
    pairs = zip(found[::3], found[2::3], strict=True)
    assert all(worst["loss"] > best["loss"] for best, worst in pairs)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["attack=pgd"], "eps is required, one or several: eps=0,2/255,8/255"),
        (["attack=pgd", "eps=8"], "eps must be between 0 and 1 (white), not 8.0"),
        (["attack=pgd", "eps=8/0"], "eps=8/0: must be a number or a fraction such as 8/255"),
        (["attack=cw", "eps=0.1"], "attack must be one of fgsm, bim, pgd, not cw"),
        (["attack=fgsm", "eps=0.1", "steps=2"], "attack=fgsm takes one step of eps"),
        (["attack=fgsm", "eps=0.1", "target=3"], "target must be least_likely, not 3"),
        (["attack=fgsm", "eps=0.1", "tta=flip"], "tta and attack exclude each other"),
        (["attack=fgsm", "eps=0.1", "split=dev"], "split=dev: these data have train, val, test"),
        (["corrupt=fog"], "corrupt=fog: must be one of noise, blur, contrast, jpeg, or all"),
        (["corrupt=all", "severity=6"], "severity=6: must be from 0 to 5"),
        (["corrupt=all", "attack=fgsm"], "attack and corrupt exclude each other"),
        (["severity=1"], "severity goes with corrupt="),
        (["eps=0.1"], "eps goes with attack="),
        (["target=least_likely"], "target goes with attack="),
    ],
)
def test_refused_words(words, said, judge):
    code, printed = judge(*words)
    assert code == 2 and said in printed.err and printed.err.count("\n") == 1


def test_what_is_no_image_cannot_be_attacked(tmp_path, capsys):
    words = ("experiment=linear_diabetes", "trainer.epochs=1", "logger=off", "trainer.device=cpu")
    assert train.main([*words, f"paths.runs_dir={tmp_path}"]) == 0
    (folder,) = tmp_path.glob("*/*")
    assert evaluate.main([f"run={folder}", "attack=fgsm", "eps=0.1"]) == 2
    assert "attack=fgsm: this run does not classify images" in capsys.readouterr().err
