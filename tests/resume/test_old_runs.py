"""Run folders of version 0.1.0, as it left them: every later version evaluates and resumes them.

Each folder of `tests/fixtures/runs` stopped after 23 steps; its `expected.json` holds the results
that the same version reached by resuming it up to step 30.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUNS = ROOT / "tests" / "fixtures" / "runs"
NAMES = sorted(p.parent.name for p in RUNS.glob("*/config.yaml"))


def overrides(name):
    """Where the data are now, for the runs that have files of their own."""
    own_files = "sonnets" in (RUNS / name / "config.yaml").read_text(encoding="utf-8")
    return [f"data.root={RUNS.parent}"] if own_files else []


def close(results, expected, split):
    """Whether the metrics of then are what they were; there may be more by now."""
    found = {name: results[split][name] for name in expected[split]}
    return found == pytest.approx(expected[split], rel=1e-4, abs=1e-5, nan_ok=True)


@pytest.fixture
def old(tmp_path):
    def copy(name):
        return shutil.copytree(RUNS / name, tmp_path / name)

    return copy


@pytest.mark.parametrize("name", NAMES)
def test_old_runs_are_resumed(name, old, run, tmp_path):
    folder = old(name)
    log = tmp_path / "log.txt"
    words = [f"resume={folder}", "trainer.steps=30", *overrides(name)]
    assert run(words, log) == 0, log.read_text()
    results = json.loads((folder / "results.json").read_text())
    expected = json.loads((folder / "expected.json").read_text())
    assert results["steps"] == 30
    assert results["selected_step"] == expected["selected_step"]
    assert all(close(results, expected, split) for split in ("val", "test") if split in expected)


@pytest.mark.parametrize("name", NAMES)
def test_old_runs_are_evaluated(name, old):
    folder = old(name)
    results = json.loads((folder / "results.json").read_text())
    split = "test" if "test" in results else "val"
    done = subprocess.run(
        [sys.executable, "evaluate.py", f"run={folder}", f"split={split}", *overrides(name)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((folder / f"evaluation-{split}.json").read_text())
    assert close({split: {k: found[k] for k in results[split]}}, results, split)


@pytest.mark.parametrize("name", ["text", "words", "bpe"])
def test_old_language_models_generate(name, old):
    folder = old(name)
    done = subprocess.run(
        [sys.executable, "scripts/generate.py", f"run={folder}", "prompt=Love", "length=20"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Love") and len(done.stdout) > 10
