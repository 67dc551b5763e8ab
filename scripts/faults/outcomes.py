"""What a run folder holds at the end, as far as it must not depend on interruptions."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.training.callbacks import TIMINGS
from zoo.training.checkpoints.checkpoint import read
from zoo.training.run_folder import RunFolder


def runs_in(runs: Path) -> list[Path]:
    """The run folders below a folder of runs, copies of other runs in them aside."""
    found = (config.parent for config in runs.rglob("config.yaml"))
    return [path for path in found if not (path / "origin.json").exists()]


def only_run(runs: Path) -> Path:
    """The one run folder below a folder of runs."""
    (path,) = runs_in(runs)
    return path


def state_of(path: Path) -> str:
    """The state of a run; `none` if it has not come that far."""
    state: str = RunFolder(path).read_status().get("state", "none")
    return state


def scalars(path: Path) -> dict[str, list[tuple[int, float]]]:
    """Every curve that TensorBoard shows of a run, timings aside."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = {}
    for split in ("", "val", "test"):
        if (path / split).is_dir():
            events = EventAccumulator(str(path / split), size_guidance={"scalars": 0}).Reload()
            for tag in events.Tags()["scalars"]:
                if tag.rpartition("/")[2] not in TIMINGS:
                    found[f"{split}/{tag}"] = [(e.step, e.value) for e in events.Scalars(tag)]
    return dict(sorted(found.items()))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """What `metrics.jsonl` of a run holds, without timings."""
    lines = (path / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMINGS} for line in lines]


def read_results(path: Path) -> dict[str, Any]:
    """What `results.json` of a run holds, without timings."""
    results = json.loads((path / "results.json").read_text())
    return {k: v for k, v in results.items() if k not in TIMINGS}


def without_timings(state: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint without the clock, where files end (rows hold timings) and what is empty."""
    position = {k: v for k, v in state["position"].items() if k != "seconds"}
    files = ("MetricsFile", "TensorBoard")
    callbacks = {k: v for k, v in state["callbacks"].items() if v and k not in files}
    return {**state, "position": position, "callbacks": callbacks}


def outcome(path: Path) -> dict[str, Any]:
    """All that a run leaves behind: weights, optimizers, rows, results, curves."""
    kept = sorted(f.name for f in (path / "checkpoints").glob("*.pt") if f.name != "previous.pt")
    checkpoints = {name: without_timings(read(path / "checkpoints" / name)) for name in kept}
    for state in checkpoints.values():
        del state["config"]["paths"]  # where the run lies
    return {
        "state": state_of(path),
        "checkpoints": checkpoints,
        "rows": read_rows(path),
        "results": read_results(path),
        "scalars": scalars(path),
    }


def assert_same(path: Path, expected: dict[str, Any]) -> None:
    """Fails where a run is not the expected one."""
    found = differences(outcome(path), expected)
    assert not found, "\n".join(found[:20])


def differences(a: Any, b: Any, where: str = "state") -> list[str]:
    """Where two nested states differ, bit for bit (NaN equals NaN)."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        same = a.dtype == b.dtype and torch.equal(a.nan_to_num(), b.nan_to_num())
        return [] if same and torch.equal(a.isnan(), b.isnan()) else [where]
    if type(a) is not type(b):
        return [f"{where}: {type(a).__name__} and {type(b).__name__}"]
    if isinstance(a, dict):
        if list(a) != list(b):
            return [f"{where}: keys {sorted(map(str, set(a) ^ set(b)))}"]
        return [d for key in a for d in differences(a[key], b[key], f"{where}[{key!r}]")]
    if isinstance(a, list | tuple):
        if len(a) != len(b):
            return [f"{where}: {len(a)} and {len(b)} entries"]
        pairs = zip(a, b, strict=True)
        return [d for i, (x, y) in enumerate(pairs) for d in differences(x, y, f"{where}[{i}]")]
    return [] if a == b or (a != a and b != b) else [f"{where}: {a!r} and {b!r}"]
