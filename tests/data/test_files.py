import os

import pytest

from zoo.data.files import locate, made_folder, whole_file


def test_a_file_takes_its_name_when_it_is_complete(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with whole_file(path) as part:
        part.write_text("new")
        assert path.read_text() == "old" and part.parent == tmp_path
    assert path.read_text() == "new" and os.listdir(tmp_path) == ["file"]


def test_nothing_changes_when_writing_fails(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), whole_file(path) as part:
        part.write_text("half")
        _ = 1 / 0
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["file"]


def test_the_content_is_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, n=name, f=real: (calls.append(n), f(*a))[1])
    with whole_file(tmp_path / "file") as part:
        part.write_text("new")
    assert calls == ["fsync", "replace", "fsync"]


def test_folders_that_were_made_for_nothing_go_again(tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(OSError), made_folder(tmp_path / "there" / "a" / "b"):
        raise OSError
    assert list(tmp_path.rglob("*")) == [tmp_path / "there"]
    with pytest.raises(OSError), made_folder(tmp_path / "there" / "a" / "b"):
        (tmp_path / "there" / "a" / "file").touch()
        raise OSError
    assert (tmp_path / "there" / "a" / "file").exists()
    with made_folder(tmp_path / "c"):
        pass
    assert (tmp_path / "c").is_dir()


def test_path_of_the_users_is_meant_from_where_they_stand_first(tmp_path, monkeypatch):
    for folder in ("stand/mine", "root/mine", "root/other"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "stand")
    root = tmp_path / "root"
    assert locate("mine", root).resolve() == tmp_path / "stand" / "mine"
    assert locate("other", root) == root / "other"
    assert locate("nowhere", root) == root / "nowhere"
    assert locate(tmp_path / "root" / "mine", root) == root / "mine"
