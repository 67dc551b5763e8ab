"""The commands that are offered to be copied."""

import os
import sys

import pytest

from zoo.app.commands import command, printable, relative
from zoo.app.failures import report
from zoo.config.errors import ConfigError


def test_paths_are_shown_relative_to_where_the_program_was_started(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert relative(tmp_path / "runs" / "a") == os.path.join("runs", "a")
    assert relative(tmp_path.parent / "b") == str(tmp_path.parent / "b")


@pytest.mark.parametrize(
    ("program", "file", "expected"),
    [
        ("train.py", "train.py", " train.py"),
        ("train.py", "scripts/generate.py", " scripts/generate.py"),
        ("/somewhere/bin/zoo-train", "evaluate.py", "zoo-evaluate"),
        ("/somewhere/bin/zoo-evaluate", "scripts/generate.py", "zoo-generate"),
    ],
)
def test_commands_are_those_of_the_way_in_which_the_program_was_started(
    program, file, expected, monkeypatch
):
    monkeypatch.setattr(sys, "argv", [program])
    assert command(file).endswith(expected)
    assert (" " in command(file)) == (" " in expected)


def test_names_from_elsewhere_do_not_move_the_cursor():
    text = "a\x1b[31mred\x1b[0m\x07\tb\nline \udcff é 数"
    assert printable(text) == "a\\x1b[31mred\\x1b[0m\\x07\tb\nline \\udcff é 数"


def test_error_about_such_a_name_shows_it_too(capsys):
    assert report(ConfigError("class \x1b]0;title\x07 is unknown")) == 2
    assert capsys.readouterr().err == "error: class \\x1b]0;title\\x07 is unknown\n"
