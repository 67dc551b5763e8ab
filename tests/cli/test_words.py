import os

from zoo.app.words import shown


def test_paths_are_shown_relative_to_where_the_program_was_started(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shown(tmp_path / "runs" / "a") == os.path.join("runs", "a")
    assert shown(tmp_path.parent / "b") == str(tmp_path.parent / "b")
