"""The baseline of experiment=knn_digits, on the same draws."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def program(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    spec = importlib.util.spec_from_file_location(
        "label_spreading", ROOT / "scripts/label_spreading.py"
    )
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "label_spreading", module)
    spec.loader.exec_module(module)
    return module


def test_more_labels_spread_further(program, capsys, monkeypatch):
    monkeypatch.setattr(program, "LABELS", (1, 5))
    assert program.main(["draws=2"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["labels", "accuracy", "deviation", "draws"]
    (one, low, _, draws), (five, high, _, _) = (row.split() for row in rows)
    assert (one, five, draws) == ("1", "5", "2")
    assert 0.4 < float(low) < float(high) and float(high) > 0.85
    assert float(low) == pytest.approx(sum(program.accuracy(1, s) for s in (0, 1)) / 2, abs=1e-4)


def test_mistakes_are_named(program, capsys):
    assert program.main(["labels_per_class=0"]) == 2
    assert "labels_per_class=0: must be a whole number, at least 1" in capsys.readouterr().err
    assert program.main(["draws=1"]) == 2
    assert program.main(["--help"]) == 0
    assert "draws=20" in capsys.readouterr().out
