import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gpu import plan, runs
from gpu.checks import CHECKS
from gpu.plan import LEAST, ROOT, Check, Record, plain, run, run_all
from zoo.training.graphs.runners import EagerRunner
from zoo.training.trainer import Trainer

FILE = ROOT / "scripts" / "gpu_check.py"


def check(name, code, *, limit=60, reason=None):
    return Check(name, f"what {name} shows", (sys.executable, "-c", code), limit, lambda: reason)


def outcomes(checks, folder, **options):
    record, lines = Record(folder / "gpu.json", {"gpu": "a fake"}), []
    good = run_all(checks, record, tell=lines.append, **{"seconds": 60, **options})
    entries = json.loads((folder / "gpu.json").read_text(encoding="utf-8"))
    assert entries == record.entries
    return good, entries, lines


def test_each_check_is_recorded_whatever_another_does(tmp_path):
    good, entries, lines = outcomes(
        [
            check("fails", "print('before'); raise SystemExit('it is broken')"),
            check("measures", "print('words'); print('{\"ratio\": 0.5}')"),
            check("cannot", "", reason="there is no second device"),
            check("passes", "print('done')"),
        ],
        tmp_path,
    )
    assert not good
    assert [e["status"] for e in entries.values()] == ["failed", "passed", "skipped", "passed"]
    assert entries["fails"]["reason"] == "exit code 1"
    assert entries["fails"]["output"] == ["before", "it is broken"]
    assert entries["measures"]["measured"] == {"ratio": 0.5}
    assert entries["cannot"]["reason"] == "there is no second device"
    assert all(e["environment"] == {"gpu": "a fake"} for e in entries.values())
    assert entries["passes"]["command"] == "python scripts/gpu_check.py passes"
    assert ["there is no second device" in line for line in lines] == [False, False, True, False]


def test_one_that_takes_too_long_is_killed_with_its_children():
    child = "import subprocess, sys; print('began', flush=True); "
    child += "subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])"
    outcome = run(check("slow", child), 2)
    assert outcome["status"] == "failed" and outcome["reason"] == "took more than 2 s"
    assert outcome["output"] == ["began"] and outcome["seconds"] < 60


class Clock:
    """A clock that only moves when somebody says so."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_what_there_is_no_time_for_is_skipped_and_the_rest_is_kept(tmp_path):
    clock = Clock()

    def late():
        clock.now += 100 - LEAST / 2

    checks = [
        check("first", "print('{\"a\": 1}')"),
        Check("late", "", (sys.executable, "-c", ""), 60, late),
        check("second", ""),
    ]
    good, entries, _ = outcomes(checks, tmp_path, seconds=100, clock=clock)
    assert good
    assert [e["status"] for e in entries.values()] == ["passed", "passed", "skipped"]
    assert entries["second"]["reason"] == "no time was left"


def test_a_check_gets_no_more_time_than_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "LEAST", 0.1)
    slow = check("slow", "import time; time.sleep(600)", limit=500)
    good, entries, _ = outcomes([slow], tmp_path, seconds=1)
    assert not good and entries["slow"]["reason"] == "took more than 1 s"


def test_a_record_keeps_what_was_not_run_again(tmp_path):
    _, before, _ = outcomes([check("a", ""), check("b", "raise SystemExit(3)")], tmp_path)
    later = [check("a", "", reason="not now"), check("b", "")]
    _, after, _ = outcomes(later, tmp_path)
    assert after["a"] == before["a"]
    assert (before["b"]["status"], after["b"]["status"]) == ("failed", "passed")


def test_a_program_that_is_ended_leaves_the_record_of_what_is_over(tmp_path):
    def interrupt():
        raise KeyboardInterrupt

    checks = [check("first", ""), Check("second", "", (sys.executable, "-c", ""), 60, interrupt)]
    with pytest.raises(KeyboardInterrupt):
        outcomes(checks, tmp_path)
    entries = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert [entry["status"] for entry in entries.values()] == ["passed"]
    assert [path.name for path in tmp_path.iterdir()] == ["gpu.json"]


def test_output_names_no_place_of_this_machine():
    places = [str(ROOT), sys.prefix, str(Path.home())]
    told = plain(" ".join(f"{place}/part/a.py" for place in places))
    assert not any(place in told for place in places)
    assert plain(f"{ROOT}/zoo/a.py:3: failed") == "zoo/a.py:3: failed"


def test_the_plan_fits_into_its_time_and_is_documented():
    page = (ROOT / "docs" / "gpu-checklist.md").read_text(encoding="utf-8")
    assert all(f"`{each.name}`" in page for each in CHECKS)
    assert [each.name for each in CHECKS][:4] == ["tests", "graphs", "waiting", "precisions"]
    assert sum(each.limit for each in CHECKS[:4]) <= 600
    own = [each.command[-1] for each in CHECKS if "--inside" in each.command]
    assert set(own) == set(runs.PROGRAMS)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_in_a_sentence():
    found = subprocess.run([sys.executable, FILE], capture_output=True, text=True, check=False)
    assert found.returncode == 2 and found.stdout == ""
    assert found.stderr == "error: torch sees no CUDA device, and these checks are for one\n"


# ------------------------------------------------------------- the checks, tried on a CPU


def test_every_step_but_the_first_few_is_watched():
    modes = []
    found = runs.waiting("cpu", ("lenet_digits",), modes.append)
    assert found == {
        "lenet_digits fp32": "does not wait",
        "lenet_digits bf16": "does not wait",
        "passed": True,
    }
    assert modes == 2 * [*(3 * ["default", "default"]), *(5 * ["error", "default"])]


def test_a_step_that_waits_is_named():
    def set_mode(mode):
        if mode == "error":
            raise RuntimeError("called a synchronizing CUDA operation")

    found = runs.waiting("cpu", ("lenet_digits",), set_mode)
    assert not found["passed"]
    assert "exit code 1: RuntimeError: called a synchronizing" in found["lenet_digits fp32"]


def test_precisions_are_compared(monkeypatch):
    found = runs.precisions("cpu", ("lenet_digits",), ("fp32",), steps=4)
    assert found == {"lenet_digits fp32": 0.0, "passed": True}
    curves = iter([[{"loss": 1.0}], [{"loss": 1.1}]])
    monkeypatch.setattr(runs, "run", lambda *words, **options: Path())
    monkeypatch.setattr(runs, "training_rows", lambda folder: next(curves))
    assert not runs.precisions("cpu", ("any",), ("bf16",), steps=4)["passed"]


def test_curves_with_nan_or_of_other_lengths_are_not_compared():
    one = [{"loss": 1.0}]
    with pytest.raises(AssertionError, match="not finite"):
        runs.distance(one, [{"loss": float("nan")}])
    with pytest.raises(AssertionError, match="lines"):
        runs.distance(one, [])


def test_graphs_must_engage(monkeypatch):
    monkeypatch.setitem(Trainer.__init__.__kwdefaults__, "make_runner", EagerRunner)
    found = runs.graphs("cpu", ("lenet_digits",), steps=12)
    assert found["passed"] and found["lenet_digits"]["largest difference"] == 0
    assert (found["lenet_digits"]["replays"], found["lenet_digits"]["steps"]) == (9, 12)
    plain_run = runs.run
    monkeypatch.setattr(
        runs, "run", lambda name, *words, **options: plain_run(name, *words[:-1], **options)
    )
    assert not runs.graphs("cpu", ("lenet_digits",), steps=12)["passed"]
