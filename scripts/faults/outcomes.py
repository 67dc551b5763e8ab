"""What a run folder holds at the end, as far as it must not depend on interruptions."""

from pathlib import Path

from tests.training.tiny import differences, read_results, read_rows, without_timings
from zoo.training.callbacks import TIMINGS
from zoo.training.checkpoint import read
from zoo.training.run_folder import RunFolder


def only_run(runs: Path) -> Path:
    """The one run folder below a folder of runs, in which there may be a copy of another run."""
    found = (config.parent for config in runs.rglob("config.yaml"))
    (path,) = (path for path in found if not (path / "origin.json").exists())
    return path


def state_of(path: Path) -> str:
    return RunFolder(path).read_status().get("state", "none")


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


def outcome(path: Path) -> dict:
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


def assert_same(path: Path, expected: dict) -> None:
    found = differences(outcome(path), expected)
    assert not found, "\n".join(found[:20])
