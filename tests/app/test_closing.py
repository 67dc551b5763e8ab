"""What train.py prints at the end."""

import pytest
from torch import nn

from zoo.app.closing import conclude
from zoo.app.place import RunLocation
from zoo.data.text.characters import CharacterVocabulary
from zoo.tasks.language_modeling import LanguageModeling
from zoo.tasks.task import Task
from zoo.tasks.translation import Translation
from zoo.training.run_folder import RunFolder

RESULTS = {
    "val": {"loss": 0.5},
    "parameters": 3,
    "steps": 2,
    "seconds": 1.0,
    "memory_mib": 1.0,
    "selected_step": 1,
    "ended_by": "trainer.steps=2",
}


@pytest.fixture
def closing(tmp_path, monkeypatch, capsys):
    """The lines that end a run with these next steps."""
    monkeypatch.chdir(tmp_path)

    def lines(steps, overrides="[seed=3, model=mlp]", optimizer="lr: 0.1"):
        folder = RunFolder.create(tmp_path / "runs" / "mine", "first")
        folder.write("overrides.yaml", overrides)
        parts = "".join(f"{name}: {{}}\n" for name in ("data", "model", "task", "schedule"))
        folder.write("config.yaml", f"{parts}optimizer: {{{optimizer}}}\n")
        place = RunLocation(folder.path.parent, folder=folder, results=RESULTS, next_steps=steps)
        conclude(place)
        return capsys.readouterr().out.splitlines()

    return lines


def test_what_the_task_says_is_next_is_offered_for_this_run(closing):
    lines = closing(["scripts/generate.py run={run} length=500"])
    (line,) = (line for line in lines if line.startswith("use it:"))
    assert line.endswith("scripts/generate.py run=runs/mine/first length=500")
    assert lines[-1] == "runs/mine/first"


def test_nothing_more_is_offered_where_the_task_says_nothing(closing):
    lines = closing([])
    assert not any(line.startswith("use it:") for line in lines)
    assert any("train.py -m model=mlp optimizer.lr=0.05,0.1 seed=1,2" in line for line in lines)


def test_tasks_on_text_say_what_their_runs_are_good_for():
    model, text = nn.Identity(), CharacterVocabulary("ab")
    assert Task(model).next_steps(None) == []
    assert LanguageModeling(model).next_steps(None) == Translation(model).next_steps(None) == []
    (step,) = LanguageModeling(model, vocabulary=text).next_steps(None)
    assert step.startswith("scripts/generate.py run={run} ")
    (step,) = Translation(model, target_vocabulary=text).next_steps(None)
    assert step.startswith("scripts/translate.py run={run} ")
