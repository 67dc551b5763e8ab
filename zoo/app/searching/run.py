"""A search from its command line to its last trial: checked, begun or gone on with, in parallel."""

import contextlib
import multiprocessing
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from zoo.app.commands import command, relative
from zoo.app.failures import report
from zoo.app.place import before_training
from zoo.app.searching.outcome import conclude
from zoo.app.searching.space import load_space
from zoo.app.searching.study import (
    PRUNERS,
    SAMPLERS,
    Search,
    Worker,
    create_study,
    open_study,
    store,
    stored,
)
from zoo.app.streams import lasting_output
from zoo.app.sweeps.checks import Built, Nowhere, build_all
from zoo.app.sweeps.queued import on_its_gpu
from zoo.app.train import train
from zoo.config.command_line import CommandLine
from zoo.config.compose import compose
from zoo.config.errors import ConfigError, did_you_mean
from zoo.config.overrides import DEFAULT_EXPERIMENT, expand, parse
from zoo.training.interruption import Interrupted, early_requests
from zoo.training.run_folder import RunFolderError, folder_of_now

TRIALS = 20


class SearchError(RuntimeError):
    """A search has come to nothing, in one sentence."""


def search(line: CommandLine) -> None:
    """Runs `scripts/search.py`.

    Raises:
        ConfigError: anything about the command line or the space is wrong; then nothing has run.
        SearchError: no trial is complete.
        Interrupted: the search was stopped, and can go on.
    """
    if find_spec("optuna") is None:
        raise ConfigError("optuna is not installed: pip install 'optuna>=5'")
    workers = line.integer("workers", 1, least=1)
    with early_requests():
        folder = _again(line) if "resume" in line.options else _begin(line)
        with _alone(folder):
            try:
                _work(folder, line, workers)
            except (Interrupted, KeyboardInterrupt) as error:
                conclude(folder, line.also())
                error.add_note(f"go on with it:  {_command(folder, line)}")
                raise
            if not conclude(folder, line.also()):
                raise SearchError("no trial is complete; the table says what became of each")


def _begin(line: CommandLine) -> Path:
    """Checks a new search and makes its folder."""
    if "space" not in line.options:
        raise ConfigError(
            "space=<file> says what is searched; resume=<folder> goes on with a search"
        )
    space, content = load_space(Path(line.options["space"]))
    words, seeds = _fixed(line, content)
    config_dir = line.flags.get("--config-dir")
    with before_training():
        recipes = []
        for corner in space.corners():
            given = [*words, *seeds[:1], *corner]
            try:
                recipes.append(compose(given, config_dir=config_dir, trusted=line.trusted))
            except ConfigError as error:
                raise ConfigError(f"{error}; nothing has been run") from error
        selected = build_all(train, recipes, noun="combination")
        if not selected:  # The data are not there, say.
            with contextlib.suppress(Built):
                train(recipes[0], Nowhere())
            raise ConfigError("these data have no validation split, by which a search would go")
    if len(selected) > 1:
        names = ", ".join(sorted(monitor for monitor, _ in selected))
        raise ConfigError(f"the runs monitor {names}; choose one: callbacks.checkpoint.monitor=...")
    ((monitor, mode),) = selected
    settings = recipes[0].settings
    found = Search(
        space=content,
        words=words,
        seeds=[word.partition("=")[2] for word in seeds] or [str(settings.seed)],
        trials=line.integer("trials", TRIALS, least=1),
        sampler=_choice(line, "sampler", SAMPLERS),
        pruner=_choice(line, "pruner", PRUNERS),
        monitor=monitor,
        mode=mode,
    )
    names = "-".join(dict.fromkeys(recipe.settings.name for recipe in recipes))
    parent = Path(settings.paths.runs_dir) / names[:80]
    try:
        folder = folder_of_now(parent, "search-")
    except OSError as error:
        raise RunFolderError(f"cannot make a folder in {parent} ({error.strerror})") from error
    create_study(folder, found)
    store(found, folder)
    return folder


def _fixed(line: CommandLine, space: dict[str, Any]) -> tuple[list[str], list[str]]:
    """The words that all runs have in common, and one for each seed."""
    words: list[str] = []
    seeds: list[str] = []
    for override in parse(line.overrides):
        word = (override.input_line or "").lstrip("+")
        key = override.key_or_group
        if key == "seed":
            seeds = [one for (one,) in expand([word])]
        elif override.is_sweep_override():
            raise ConfigError(f"{word}: several values belong into the space, seeds aside")
        elif key in space:
            raise ConfigError(f"{word}: {key} is in the space as well; omit one")
        else:
            words.append(word)
    keys = {word.partition("=")[0] for word in words} | set(space)
    if not keys & {"experiment", "model", "data", "task"}:
        words.insert(0, f"experiment={DEFAULT_EXPERIMENT}")
    return words, seeds


def _choice(line: CommandLine, key: str, known: Sequence[str]) -> str:
    value = line.options.get(key, known[0])
    if value not in known:
        raise ConfigError(f"{key}={value}: {did_you_mean(value, known)}")
    return value


def _again(line: CommandLine) -> Path:
    """The folder of a search that goes on, with as many trials as it is now to have."""
    folder = Path(line.options["resume"])
    others = [f"{k}=" for k in line.options if k not in ("resume", "trials", "workers")]
    if given := [*line.overrides, *others]:
        raise ConfigError(
            f"resume={folder}: a search goes on as it was; only trials= and workers= may change, "
            f"so omit {' '.join(given)}"
        )
    found = stored(folder)
    store(replace(found, trials=line.integer("trials", found.trials, least=1)), folder)
    return folder


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Holds a search for this process and its workers."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(FileLock(folder / ".lock").acquire(timeout=0))
            for lock in folder.glob(".worker-*"):  # They may have outlived whoever started them.
                with FileLock(lock).acquire(timeout=0):
                    pass
        except Timeout:
            raise RunFolderError(
                f"{folder} is in use by another process; wait for it or stop it"
            ) from None
        yield


def _work(folder: Path, line: CommandLine, workers: int) -> None:
    """Runs what is left of a search, in this process or in several."""
    from optuna.trial import TrialState

    trials = open_study(folder, stored(folder)).get_trials(states=[TrialState.RUNNING])
    left = [trial.number for trial in trials]
    if workers == 1:
        Worker(folder, train, line, left=left).work()
        return
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_worker, args=(folder, line, number, left[number::workers]))
        for number in range(workers)
    ]
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join()
    except (Interrupted, KeyboardInterrupt) as error:
        for process in processes:
            process.terminate()  # SIGTERM: they save, if Ctrl-C has not told them already.
        for process in processes:
            process.join()
        raise (error if isinstance(error, Interrupted) else Interrupted(signal.SIGINT)) from None
    if any(process.exitcode for process in processes):
        codes = ", ".join(str(process.exitcode) for process in processes)
        raise SearchError(
            f"workers ended with {codes}; go on with the rest:  {_command(folder, line)}"
        )


def _command(folder: Path, line: CommandLine) -> str:
    words = shlex.join([*line.also(), f"resume={relative(folder)}"])
    return f"{command('scripts/search.py')} {words}"


def _worker(folder: Path, line: CommandLine, number: int, left: Sequence[int]) -> None:
    """One of several processes that work on a search."""
    with lasting_output(), early_requests():
        try:
            with FileLock(folder / f".worker-{number}"):
                own = partial(on_its_gpu, train, number)
                # Several bars on one terminal would overwrite one another.
                fixed = stored(folder).words
                is_told = any(word.startswith("logger") for word in fixed)
                lines = [] if is_told else ["logger.console=lines"]
                Worker(folder, own, line, left=left, words=lines).work()
        except (Exception, KeyboardInterrupt, Interrupted) as error:
            sys.exit(report(error))
