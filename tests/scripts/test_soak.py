"""A few faults of each kind that no other test has, on cheap runs; and what is kept of them."""

import json
import os

import pytest

from faults import plan
from faults.journal import Journal, summary
from faults.kinds import KINDS
from faults.plan import TWO_PROCESSES, Fault, Soak, fault
from faults.tiny import EXPERIMENTS, MADE_UP
from zoo.config.errors import ConfigError

SHORT = [
    *("asked to end twice", "stopped and continued", "no room for files", "no room in files"),
    *("newest checkpoint damaged", "run folder renamed", "data worker killed"),
    "several, one after the other",
]


@pytest.fixture(scope="module")
def soak(tmp_path_factory):
    if not hasattr(os, "fork"):
        pytest.skip("processes are forked here, and this system has no fork")
    found = Soak(tmp_path_factory.mktemp("soak"), limit=200)
    yield found
    found.close()


@pytest.mark.slow
@pytest.mark.parametrize("kind", SHORT)
def test_a_disturbed_run_comes_to_what_it_would_have_come_to(kind, soak):
    experiment = "pictures" if kind == "data worker killed" else "gcn_karate"
    row = soak.do(Fault(0, SHORT.index(kind), kind, experiment))
    assert row["result"] == "passed", row
    assert row["told"] and not (soak.folder / "now").exists()


@pytest.mark.slow
def test_a_run_that_comes_to_something_else_has_failed_and_is_kept(soak, monkeypatch):
    def spoiled(life):
        life.go(0)
        with open(life.path / "metrics.jsonl", "a") as file:
            file.write('{"step": 1, "epoch": 0.5, "split": "train"}\n')

    monkeypatch.setattr(plan, "KINDS", {"spoiled": spoiled})
    row = soak.do(Fault(0, 99, "spoiled", "gcn_karate"))
    assert row["result"] == "failed"
    assert row["reason"].startswith("differs from the undisturbed run:\nstate['rows']")
    assert str(soak.folder) not in json.dumps(row)
    assert (soak.folder / "failed" / "0-99" / "log").exists()


@pytest.mark.slow
def test_what_cannot_be_tried_here_is_skipped_and_said(soak):
    row = soak.do(Fault(0, 0, "clock changed", "gcn_karate"))
    assert row["result"] == "skipped" and "libfaketime is not installed" in row["reason"]


def test_the_same_number_is_the_same_fault_and_every_kind_and_experiment_has_its_turn():
    faults = [fault(3, number) for number in range(len(KINDS) * len(EXPERIMENTS))]
    assert faults[:40] == [fault(3, number) for number in range(40)]
    assert faults[:40] != [fault(4, number) for number in range(40)]
    for begin in range(0, len(faults), len(KINDS)):
        assert {each.kind for each in faults[begin : begin + len(KINDS)]} == set(KINDS)
    assert {each.experiment for each in faults} == {*EXPERIMENTS, *MADE_UP}
    of_two = {e.experiment for e in faults if e.kind == "one of two processes killed"}
    assert of_two == set(TWO_PROCESSES)


def row(number, result, **more):
    return {
        "number": number,
        "kind": "moved",
        "experiment": "gcn",
        "result": result,
        "seconds": 1.5,
        "told": [],
        **more,
    }


def test_a_journal_goes_on_behind_its_last_whole_line(tmp_path):
    path = tmp_path / "faults.jsonl"
    journal = Journal(path, 7)
    for number in (0, 1):
        journal.add(row(number, "passed"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    journal = Journal(path, 7)
    assert list(journal.rows) == [0]
    journal.add(row(1, "passed"))
    assert path.read_bytes() == whole
    with pytest.raises(ConfigError, match=r"seed=8: .* holds faults of seed=7; take another out="):
        Journal(path, 8)


def test_a_summary_counts_and_says_how_to_repeat_what_failed():
    rows = [row(0, "passed"), row(1, "failed", reason="differs"), row(2, "skipped", reason="no")]
    found = summary(rows, "python scripts/soak.py faults=3 seed=0")
    assert (found["passed"], found["failed"], found["skipped"], found["seconds"]) == (1, 1, 1, 4.5)
    counts = {"moved": {"passed": 1, "failed": 1, "skipped": 1}}
    assert found["kinds"] == counts and found["experiments"] == {"gcn": counts["moved"]}
    assert found["skipped_for"] == {"no": 1}
    (failure,) = found["failures"]
    assert failure["repeat"] == "python scripts/soak.py faults=3 seed=0 only=1"
    assert failure["reason"] == "differs"
