"""Another run that a run needs: read once, copied into the new run folder, and read there again.

`task.features=<run folder>` and `task.teacher=<run folder>` name one. The new run folder keeps what
is needed of it in a folder of the key's name, so that it can be resumed and evaluated where the
other run is gone.
"""

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.app.learned import LEARNED
from zoo.app.rebuild import Evaluation, prepare_evaluation
from zoo.config.errors import ConfigError, as_cli_text, one_line
from zoo.config.resuming import flat
from zoo.training.checkpoints.checkpoint import CheckpointError, copy
from zoo.training.run_folder import RunFolder

KEYS = ("features", "teacher")
"""Arguments of a task that name another run."""
ORIGIN = "origin.json"


def other_run(key: str, named: str, kept: Path | None) -> Evaluation:
    """The parts of the other run that a configuration names, on the CPU.

    Args:
        key: one of `KEYS`.
        named: its value.
        kept: the run folder, where it has begun; None: the run that is named is read.

    Raises:
        ConfigError: there is no such run, or its copy is not what it was.
    """
    folder = Path(named) if kept is None else kept / key
    if kept is not None:
        _check_unchanged(folder)
    try:
        return prepare_evaluation(folder, ["trainer.device=cpu"])
    except (ConfigError, CheckpointError) as error:
        raise ConfigError(f"task.{key}={named}: {one_line(error)}") from error


def keep_other_runs(options: Mapping[str, Any], run: Path) -> None:
    """Copies what `other_run` needs of each run that is named into a new run folder.

    Args:
        options: of the task.
        run: the new run folder.
    """
    for key in KEYS:
        if options.get(key) is not None:
            _copy(Path(options[key]), run / key)


def _copy(source: Path, target: Path) -> None:
    checkpoint = source / "checkpoints" / "best.pt"
    if not checkpoint.exists():
        checkpoint = checkpoint.with_name("last.pt")
    (target / "checkpoints").mkdir(parents=True)
    learned = RunFolder(source).read("data.json").get(LEARNED)
    # Only what lies in the folder itself, whatever a damaged file says.
    names = [Path(name).name for name in learned] if isinstance(learned, dict) else []
    for name in ("config.yaml", "data.json", *names):
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    kept = target / "checkpoints" / "best.pt"
    copy(checkpoint, kept)
    RunFolder(target).write(ORIGIN, {"run": str(source), "sha256": _digest(kept)})


def _check_unchanged(folder: Path) -> None:
    path = folder / "checkpoints" / "best.pt"
    expected = RunFolder(folder).read(ORIGIN).get("sha256")
    if not path.is_file() or _digest(path) != expected:
        raise ConfigError(
            f"{path} is missing or not as this run copied it, and would not be the network that "
            "this run began with: restore it"
        )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def difference_of_data(
    mine: Mapping[str, Any], data: Any, theirs: Mapping[str, Any], others: Any
) -> str:
    """What makes two runs' samples outside training different ones; "" if nothing does.

    Args:
        mine: the configuration of one run's data.
        data: its data module, which need not be set up.
        theirs: the configuration of the other's.
        others: its data module.
    """
    free = {*data.changeable, *data.for_training}
    a, b = dict(flat(mine)), dict(flat(theirs))
    for key in {**a, **b}:
        if key not in free and a.get(key) != b.get(key):
            texts = [as_cli_text(node.get(key)) for node in (a, b)]
            return f"data.{key}={texts[0]} in one and {texts[1]} in the other"
    learned = [{n: v.to_json() for n, v in m.vocabularies.items()} for m in (data, others)]
    return "" if learned[0] == learned[1] else "their vocabularies are not the same"
