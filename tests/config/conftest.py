import shlex
from typing import NamedTuple

import pytest

from zoo.app import main as entry


class Answer(NamedTuple):
    code: int
    out: str
    err: str
    configs: list  # those that were handed to training


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory, so that everything that a command leaves behind is seen."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ZOO_DATA_DIR", raising=False)
    return tmp_path


@pytest.fixture
def command(here, capsys):
    """Runs the words of a command line; training only takes note of its configuration."""

    def run(words, train=None):
        configs = []

        def stub(recipe, place):
            configs.append(recipe.config)
            return {"monitor": "loss", "mode": "min", "val": {"loss": 0.0}}

        words = shlex.split(words) if isinstance(words, str) else list(words)
        code = entry.main(train or stub, words)
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err, configs)

    return run
