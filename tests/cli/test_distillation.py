"""task=distillation task.teacher=<run folder>: a student and the copy of its teacher."""

import json
import shutil

import pytest
import torch

import evaluate
import train

STUDENT = ("experiment=distil_digits", "trainer.epochs=2", "logger=off")


def run_in(place, *words):
    assert train.main([*words, f"paths.runs_dir={place}"]) == 0
    (folder,) = place.glob("*/*")
    return folder


def weights_of(folder):
    return torch.load(folder / "checkpoints" / "last.pt", weights_only=True)["model"]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    words = ("experiment=lenet_digits", "trainer.steps=30", "trainer.epochs=null", "logger=off")
    return run_in(tmp_path_factory.mktemp("teacher"), *words)


@pytest.fixture(scope="module")
def student(teacher, tmp_path_factory):
    """Of a teacher that takes larger images, which are made of the student's."""
    return run_in(tmp_path_factory.mktemp("student"), *STUDENT, f"task.teacher={teacher}")


def test_teacher_changes_what_is_learned_and_without_a_share_nothing(teacher, student, tmp_path):
    plain = weights_of(run_in(tmp_path / "plain", *STUDENT, "task=classification"))
    words = (*STUDENT, "task.alpha=0", f"task.teacher={teacher}")
    without = weights_of(run_in(tmp_path / "without", *words))
    assert all(torch.equal(plain[name], without[name]) for name in plain)
    taught = weights_of(student)
    assert taught.keys() == plain.keys()
    assert not any(torch.equal(plain[name], taught[name]) for name in plain)


def test_the_run_folder_is_enough(teacher, tmp_path, capsys):
    place = tmp_path / "teacher"
    shutil.copytree(teacher, place)
    folder = run_in(tmp_path / "runs", *STUDENT, f"task.teacher={place}")
    kept = torch.load(folder / "teacher" / "checkpoints" / "best.pt", weights_only=True)
    best = torch.load(place / "checkpoints" / "best.pt", weights_only=True)
    assert all(torch.equal(kept["model"][name], best["model"][name]) for name in kept["model"])
    shutil.rmtree(place)
    assert evaluate.main([f"run={folder}"]) == 0
    found = json.loads((folder / "evaluation-test.json").read_text())
    results = json.loads((folder / "results.json").read_text())["test"]
    assert {name: found[name] for name in results} == pytest.approx(results)
    assert train.main([f"resume={folder}", "trainer.epochs=3"]) == 0
    with (folder / "teacher" / "checkpoints" / "best.pt").open("ab") as file:
        file.write(b"x")
    assert train.main([f"resume={folder}", "trainer.epochs=4"]) == 2
    assert "not as this run copied it" in capsys.readouterr().err


def test_student_of_a_student_and_their_ensemble(student, tmp_path):
    second = run_in(tmp_path, *STUDENT, "seed=1", f"task.teacher={student}")
    out = tmp_path / "both.json"
    assert evaluate.main([f"run={student},{second}", "ensemble=mean", f"out={out}"]) == 0
    assert len(json.loads(out.read_text())["members"]) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("experiment=distil_digits",), "Distillation learns from another run: task.teacher="),
        (("experiment=lenet_digits", "task.teacher=x"), "Classification learns from no teacher"),
        (("experiment=distil_digits", "task.teacher=nowhere"), "task.teacher=nowhere: "),
        (("experiment=distil_digits", "data.image_size=12", "task.teacher={}"), "pixels a side"),
    ],
)
def test_what_does_not_go_together_is_refused(words, message, teacher, tmp_path, capsys):
    words = [word.format(teacher) for word in words]
    assert train.main([*words, f"paths.runs_dir={tmp_path}"]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_teacher_of_another_kind_is_refused(tmp_path, capsys):
    words = ("experiment=linear_diabetes", "trainer.epochs=1", "logger=off")
    other = run_in(tmp_path, *words)
    assert train.main([*STUDENT, f"task.teacher={other}", f"paths.runs_dir={tmp_path}"]) == 2
    assert "must be a run of a classifier with probabilities" in capsys.readouterr().err
