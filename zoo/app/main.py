"""From the words of a command line to runs, and from what goes wrong to a line and an exit code.

Exit codes: 0 finished, 1 failed, 2 wrong configuration; after saving: 130 Ctrl-C, 143 SIGTERM,
129 SIGHUP and 75 the end of `trainer.time_limit`.
"""

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoo.app.batch_size import sized
from zoo.app.closing import conclude
from zoo.app.commands import relative
from zoo.app.named_runs import checkpoint_of, find_run
from zoo.app.place import RunLocation, Train, before_training, extension
from zoo.app.processes import (
    is_first,
    one_speaker,
    report_here,
    require_one_process,
    run_of_this_launch,
)
from zoo.app.streams import lasting_output
from zoo.config.command_line import FLAGS, CommandLine, parse_words
from zoo.config.errors import ConfigError, one_line
from zoo.training.interruption import Interrupted, early_requests
from zoo.version import __version__


def main(train: Train, words: Sequence[str] | None = None) -> int:
    """Runs `train.py`.

    Args:
        train: builds and trains one run.
        words: of the command line; None: the process's own.

    Returns:
        The exit code.
    """
    with lasting_output(), early_requests():
        try:
            with one_speaker():
                return _main(train, words)
        except (Exception, KeyboardInterrupt, Interrupted) as error:
            return report_here(error)


def _main(train: Train, words: Sequence[str] | None) -> int:
    warnings.showwarning = _show_warning  # type: ignore[assignment]
    line = parse_words(
        sys.argv[1:] if words is None else words,
        options=("resume", "checkpoint", "failed"),
        flags=FLAGS,
    )
    if "--help" in line.flags:
        from zoo.config.help import text

        print(text())
        return 0
    if "--version" in line.flags:
        show_version()
        return 0
    if line.options.get("failed", "retry") != "retry":
        raise ConfigError(f"failed={line.options['failed']}: must be retry")
    if "resume" in line.options:
        from zoo.app.sweeps.record import sweep_of

        if (folder := sweep_of(line)) is not None:
            from zoo.app.sweeps.sweep import go_on

            require_one_process("a sweep")
            return go_on(train, line, folder)
        return _resume(train, line)
    if "failed" in line.options:
        raise ConfigError("failed=retry: goes with resume=<sweep folder>")
    if "checkpoint" in line.options:
        raise ConfigError(
            f"checkpoint={line.options['checkpoint']}: goes with resume=<run folder>; weights "
            "to begin with are model.weights=<file>"
        )
    if "--cfg" in line.flags:
        return _show(line)
    if "--multirun" in line.flags:
        from zoo.app.sweeps.sweep import sweep

        require_one_process("a sweep (-m)")
        return sweep(train, line)
    return _single(train, line)


def _show_warning(message: Warning | str, category: type[Warning], *_: Any) -> None:
    """A warning as one line, without the line of source that raised it."""
    is_ours = not issubclass(category, DeprecationWarning | FutureWarning)
    if is_ours and is_first():  # All processes of a run have the same to say.
        print(f"warning: {one_line(message)}", file=sys.stderr, flush=True)


def show_version() -> None:
    """Prints the versions that a report of a problem should name."""
    from importlib.metadata import version

    print(f"zoo {__version__}, torch {version('torch')}, Python {sys.version.split()[0]}")


def _show(line: CommandLine) -> int:
    from zoo.config.compose import compose
    from zoo.config.run_config import dump

    if line.flags["--cfg"] != "job":
        raise ConfigError(f"--cfg {line.flags['--cfg']}: must be job (--cfg job)")
    if "--multirun" in line.flags:
        raise ConfigError("--cfg job shows one configuration; omit -m")
    recipe = compose(
        line.overrides, config_dir=line.flags.get("--config-dir"), trusted=line.trusted
    )
    print(dump(recipe.config), end="")
    return 0


def _single(train: Train, line: CommandLine) -> int:
    from zoo.config.compose import compose

    with before_training():
        recipe = compose(
            line.overrides, config_dir=line.flags.get("--config-dir"), trusted=line.trusted
        )
    settings = recipe.settings
    place = RunLocation(
        Path(settings.paths.runs_dir) / settings.name, overrides=line.overrides, also=line.also()
    )
    if begun := run_of_this_launch(place.parent):
        if (begun / "checkpoints" / "last.pt").exists():
            return _resume(train, CommandLine(options={"resume": str(begun)}, trusted=line.trusted))
        place.begin_again(begun)
    place.run(sized(train), recipe)
    conclude(place)
    return 0


def _resume(train: Train, line: CommandLine) -> int:
    from zoo.config.compose import complete
    from zoo.config.resuming import check_changes
    from zoo.config.run_config import load, merge
    from zoo.training.checkpoints.checkpoint import CheckpointFolder
    from zoo.training.run_folder import RunFolder

    if "failed" in line.options:
        raise ConfigError(f"resume={line.options['resume']} failed=retry: is no sweep; omit failed")
    if line.flags:
        flags = " ".join(line.flags)
        named = f"resume={line.options['resume']} {flags}"
        raise ConfigError(f"{named}: goes on with one run as it is; omit {flags}")
    path = find_run(line, "resume")
    checkpoint = checkpoint_of(path, line.options.get("checkpoint", "last"))
    stored = load(path / "config.yaml")
    recipe = merge(stored, line.overrides, line.trusted)
    changes = check_changes(complete(stored), recipe.config, line.overrides)
    folder = RunFolder(path)
    finished = folder.read("status.json").get("state") == "finished"
    if finished and checkpoint == "last" and "from here on" not in changes.values():
        ended_by = str(folder.read("results.json").get("ended_by", ""))
        print(f"this run is finished{extension(ended_by)}\n{relative(path)}")
        return 0
    if checkpoint == "last":
        CheckpointFolder(path / "checkpoints").require_some()
    place = RunLocation(
        path.parent,
        overrides=line.overrides,
        folder=folder,
        resume=True,
        checkpoint=checkpoint,
        changes=list(changes),
        also=line.also(),
    )
    place.run(train, recipe)
    conclude(place)
    return 0
