"""The program that spreads the training labels of a graph."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def program():
    path = ROOT / "scripts" / "label_propagation.py"
    spec = importlib.util.spec_from_file_location("label_propagation_script", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_prints_a_line_for_each_alpha_and_what_val_selects(program, capsys):
    assert program.main(["data=karate"]) == 0
    names, *rows, last = capsys.readouterr().out.splitlines()
    assert names.split() == ["alpha", "val", "test"]
    values = [list(map(float, row.split())) for row in rows]
    assert [row[0] for row in values] == list(program.ALPHAS)
    alpha, _, test = max(values, key=lambda row: row[1])
    assert last == f"best on val: alpha {alpha}, test accuracy {test:.4f}"
    assert test > 0.9


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data=digits"], "data: Digits has no graph with nodes for train"),
        (["data=karate", "steps=0"], "steps=0"),
    ],
)
def test_what_it_cannot_do_it_refuses(program, words, message, capsys):
    assert program.main(words) == 2
    assert message in capsys.readouterr().err
