"""What may change when a run goes on: every setting has an answer, in code and in the docs."""

import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import get_type_hints

import pytest

from zoo.config.compose import COMPONENTS, compose
from zoo.config.errors import ConfigError
from zoo.config.resuming import FREE, FROM_HERE, REFUSED, answer, check_changes
from zoo.config.run_config import add_words, merge, stored_words
from zoo.training.settings import RunSettings, TrainerSettings

DOCS = Path(__file__).parents[2] / "docs" / "runs.md"


def settings_of(kind, prefix=""):
    """The full key of every setting of the fixed part."""
    for field in fields(kind):
        inner = get_type_hints(kind)[field.name]
        if is_dataclass(inner):
            yield from settings_of(inner, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name


SETTINGS = [*settings_of(RunSettings), *COMPONENTS]


def test_every_setting_has_one_answer():
    assert len(SETTINGS) > 40
    for key in SETTINGS:
        assert answer(key)
    named = [*FREE, *FROM_HERE, *REFUSED]
    assert len(set(named)) == len(named)
    for name in named:  # None is of a setting that there is not.
        assert any(key == name or key.startswith(f"{name}.") for key in SETTINGS), name


def test_a_setting_without_an_answer_is_noticed():
    with pytest.raises(KeyError):
        answer("trainer.new")


def test_the_docs_have_the_same_table():
    found = {}
    for line in DOCS.read_text(encoding="utf-8").splitlines():
        if match := re.match(r"\| (free|from here on|refused) \| (.*) \|", line):
            found.setdefault(match[1], []).extend(re.findall(r"`([\w.]+)`", match[2]))
    assert {kind: sorted(names) for kind, names in found.items()} == {
        "free": sorted(FREE),
        "from here on": sorted(FROM_HERE),
        "refused": sorted(REFUSED),
    }


OTHER = {
    "trainer.accumulate": "2",
    "trainer.limit_train_batches": "3",
    "trainer.limit_eval_batches": "3",
    "trainer.overfit": "true",
    "callbacks.checkpoint.monitor": "loss",
    "callbacks.checkpoint.mode": "max",
    "callbacks.checkpoint": "{monitor:loss}",
    "paths.runs_dir": "elsewhere",
}
NAMED = ("callbacks.checkpoint.monitor=accuracy", "callbacks.checkpoint.mode=min")


@pytest.mark.parametrize("key", OTHER)
def test_what_a_run_keeps_is_refused_by_its_key(key):
    stored = compose(["experiment=lenet_digits", *NAMED]).config
    words = ["trainer.epochs=99", f"{key}={OTHER[key]}"]
    with pytest.raises(ConfigError, match=re.escape(words[1])):
        check_changes(stored, merge(stored, words).config, words)


def test_the_same_value_again_changes_nothing():
    stored = compose(["experiment=lenet_digits"]).config
    words = ["trainer.accumulate=1", "trainer.log_every=7", "optimizer.lr=0.5"]
    assert check_changes(stored, merge(stored, words).config, words) == {
        "trainer.log_every=7": "free",
        "optimizer.lr=0.5": "from here on",
    }


def test_data_are_looked_for_where_they_are_today(monkeypatch):
    monkeypatch.delenv("ZOO_DATA_DIR", raising=False)
    stored = compose(["experiment=word2vec_text", "data=shakespeare_words"]).config
    assert stored["data"]["text"]["root"] == "data"
    moved = merge(stored, ["paths.data_dir=/new"]).config
    assert moved["data"]["text"]["root"] == moved["paths"]["data_dir"] == "/new"
    monkeypatch.setenv("ZOO_DATA_DIR", "/env")
    assert merge(stored, []).config["data"]["text"]["root"] == "/env"
    assert merge(stored, ["paths.data_dir=/new"]).config["data"]["text"]["root"] == "/new"
    assert merge(stored, ["data.text.root=/own"]).config["data"]["text"]["root"] == "/own"
    assert merge(moved, []).config["data"]["text"]["root"] == "/env"
    monkeypatch.delenv("ZOO_DATA_DIR")
    assert merge(moved, []).config["data"]["text"]["root"] == "/new"  # Nothing is said today.


@pytest.mark.parametrize("before", ["- a=1\n- b=2\n", "[a=1, b=2]\n"])
def test_the_words_of_a_resume_stand_behind_their_step(before, tmp_path):
    text = add_words(before, 60, ["b=3", "c=[1, 2]"])
    assert text == "- a=1\n- b=2\n# from step 60 on:\n- b=3\n- c=[1, 2]\n"
    (tmp_path / "overrides.yaml").write_text(text)
    assert stored_words(tmp_path) == ["a=1", "b=3", "c=[1, 2]"]
    assert add_words("[]\n", 5, ["b=3"]) == "# from step 5 on:\n- b=3\n"


@pytest.mark.parametrize("limit", ["0:30", "x", "1:60:00", "", 0, -1.0])
def test_a_time_limit_is_minutes_or_a_time(limit):
    with pytest.raises(ValueError, match=r"^time_limit must be minutes above 0 or HH:MM:SS"):
        TrainerSettings(time_limit=limit)


def test_a_time_limit_of_the_command_line_may_be_either():
    for word, value in (("90", 90.0), ("07:30:00", "07:30:00"), ("0.5", 0.5)):
        recipe = compose([f"trainer.time_limit={word}"])
        assert recipe.settings.trainer.time_limit == value


@pytest.mark.parametrize("before", ["\x00: [", "- a=1\n- [", "a: 1\n", "3\n"])
def test_a_damaged_record_of_words_begins_anew(before, tmp_path):
    (tmp_path / "overrides.yaml").write_text(add_words(before, 60, ["b=3"]))
    assert stored_words(tmp_path) == ["b=3"]
    assert "damaged" in (tmp_path / "overrides.yaml").read_text()
