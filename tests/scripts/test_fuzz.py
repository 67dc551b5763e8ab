"""Mutants of valid command lines are answered well; the program sees answers that are not."""

import sys

import pytest

from tests.scripts.test_compare import load

fuzz = load("fuzz")


def test_no_mutant_ends_in_a_traceback_or_is_accepted_and_changes_nothing():
    answers, faults = fuzz.fuzz(len(fuzz.MUTATIONS) * 4, seed=15)
    assert not faults, "\n".join(f"{mutant.words}: {fault}" for mutant, fault in faults)
    assert {kind for kind, _ in answers} == set(fuzz.MUTATIONS)
    assert sum(n for (_, how), n in answers.items() if how == "refused") > sum(answers.values()) / 2
    assert any(how == "accepted" for _, how in answers)


def test_the_same_seed_gives_the_same_mutants():
    first, again, other = (list(fuzz.mutants(20, seed)) for seed in (1, 1, 2))
    assert first == again != other


def answered(monkeypatch, words, place, main=None):
    if main is not None:
        monkeypatch.setattr(fuzz.entry, "main", main)
    return fuzz.fault_of(fuzz.Mutant("made up", words, place))


BASE = ["model=mlp", "data=digits"]


@pytest.mark.parametrize(
    ("word", "fault"),
    [
        ("seed=3", ""),
        ("seed=0", ""),  # It is what would be there without it.
        ("model.hidden_sizes=[7]", ""),
        ("callbacks={}", "which changes nothing"),
    ],
)
def test_a_word_that_is_accepted_changes_something_or_is_true(word, fault, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    config = fuzz.compose([*BASE, word] if not fault else BASE).config

    def accept(*_):
        raise fuzz.Accepted(config)

    answer, found = answered(monkeypatch, [*BASE, word], 2, accept)
    assert answer == "accepted" and fault in found and bool(fault) == bool(found)


def crash(*_):
    raise KeyError("key")


def fail(*_):
    print("Traceback (most recent call last):\nKeyError", file=sys.stderr)
    return 1


def ramble(*_):
    print("error: this\nand that", file=sys.stderr)
    return 2


def litter(*_):
    open("left", "w").close()
    return 2


@pytest.mark.parametrize(
    ("main", "fault"),
    [
        (crash, "KeyError: 'key'"),
        (fail, "exit code 1: Traceback"),
        (ramble, "refused in 2 lines"),
        (litter, "left left behind"),
        (lambda *_: 0, "exit code 0"),
    ],
)
def test_bad_answers_are_seen(main, fault, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert fault in answered(monkeypatch, ["seed=1"], 0, main)[1]


def test_a_program_that_answers_badly_ends_with_1(monkeypatch, capsys):
    monkeypatch.setattr(fuzz.entry, "main", crash)
    with pytest.raises(SystemExit) as ended:
        fuzz.main(["mutants=2"])
    assert ended.value.code == 1
    assert "2 mutants of seed 0: 2 were answered badly" in capsys.readouterr().out
    assert fuzz.main(["mutant=2"]) == fuzz.main(["seed=-1"]) == 2
