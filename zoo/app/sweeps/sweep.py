"""Sweeps: every combination is checked before the first run, and no failing run stops the others.

Hydra expands and launches (its launchers for Slurm and Ray included); each job composes its own
configuration by the same strict path as a single run.
"""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig

from zoo.app.commands import command, installed, relative
from zoo.app.failures import report
from zoo.app.place import Train, before_training
from zoo.app.sweeps.checks import build_all, naming_job, repetitions
from zoo.app.sweeps.jobs import WORST, Jobs
from zoo.app.sweeps.queued import HERE, importable, on_its_gpu, requeue
from zoo.app.sweeps.record import FILE, SweepRecord, check_line, read_record
from zoo.app.sweeps.table import collect, table
from zoo.config.command_line import CommandLine
from zoo.config.compose import compose, compose_plain
from zoo.config.overrides import expand, parse, prepare, quoted, search_path
from zoo.config.paths import CONFIGS
from zoo.config.recipe import Recipe
from zoo.training.interruption import Interrupted


@dataclass(frozen=True)
class Plan:
    """All runs of a sweep, checked.

    Attributes:
        words: as Hydra is to see them, those of its launcher and sweeper included.
        recipes: of the jobs, in their order; where a sweeper chooses the values, the rest of them.
    """

    words: list[str]
    recipes: list[Recipe]

    @property
    def ours(self) -> list[str]:
        """The words of the runs."""
        return [word for word in self.words if not word.startswith("hydra")]

    @property
    def hydra(self) -> list[str]:
        """The words that choose how the runs are launched."""
        return [word for word in self.words if word.startswith("hydra")]

    @property
    def swept(self) -> frozenset[str]:
        """The keys that differ between the runs."""
        return frozenset(o.key_or_group for o in parse(self.ours) if o.is_sweep_override())


def sweep(train: Train, line: CommandLine) -> int:
    """Runs every combination of the command line's comma-separated values.

    Returns:
        0, or 1 if a run failed.

    Raises:
        ConfigError: any combination is wrong; then none has run.
    """
    from zoo.training.run_folder import RunFolder, RunFolderError, folder_of_now

    with before_training():
        plan = _plan(line.overrides, line)
        # Another machine may have other devices and data: there the jobs themselves find out.
        launchers = {w.partition("=")[2] for w in plan.hydra if w.startswith("hydra/launcher=")}
        if len(plan.recipes) > 1 and launchers <= {*HERE}:
            build_all(train, plan.recipes)
    names = list(dict.fromkeys(recipe.settings.name for recipe in plan.recipes))
    parent = Path(plan.recipes[0].settings.paths.runs_dir) / "-".join(names)[:80]
    try:
        folder = folder_of_now(parent, "sweep-")
    except OSError as error:
        raise RunFolderError(f"cannot make a folder in {parent} ({error.strerror})") from error
    record = SweepRecord([word.lstrip("+") for word in plan.ours], line.also(), plan.hydra)
    try:
        RunFolder(folder).write(FILE, record.text())
    except OSError as error:
        folder.rmdir()
        raise RunFolderError(f"cannot write into {folder} ({error.strerror})") from error
    return _launch(train, line, folder, plan)


def go_on(train: Train, line: CommandLine, folder: Path) -> int:
    """Goes on with a sweep that was stopped or killed: finished runs are kept.

    Args:
        train: builds and trains one run.
        line: `resume=` with the words that only a command line can say, and `failed=retry` to try
            the failed runs again.
        folder: of the sweep.

    Returns:
        0, or 1 if a run failed, now or before.

    Raises:
        ConfigError: the line changes the runs, or the folder is damaged.
    """
    record = read_record(folder)
    check_line(folder, record, line)
    with before_training():
        plan = _plan([*record.words, *line.overrides], line)
    if record.hydra and not line.overrides:
        print(f"begun with {' '.join(record.hydra)}: give it again, or the runs are launched here")
    return _launch(train, line, folder, plan)


def _plan(overrides: Sequence[str], line: CommandLine) -> Plan:
    """What the words of a sweep mean, every combination composed.

    Raises:
        ConfigError: a combination is wrong.
    """
    config_dir = line.flags.get("--config-dir")
    plan = Plan(prepare(overrides, config_dir, sweep=True), [])
    compose_plain(plan.hydra, config_dir)
    if any(word.startswith("hydra/sweeper") for word in plan.hydra):
        # The sweeper chooses the values: what can be checked beforehand is everything else.
        jobs = [[o.input_line or "" for o in parse(plan.ours) if not o.is_sweep_override()]]
    else:
        jobs = expand(plan.ours)
    for number, combination in enumerate(jobs):
        with naming_job(number, len(jobs)):
            plan.recipes.append(
                compose(combination, config_dir=config_dir, trusted=line.trusted, default=False)
            )
    return plan


def _launch(train: Train, line: CommandLine, folder: Path, plan: Plan) -> int:
    """Has Hydra launch all jobs of a sweep, each of which knows what is left of it, and closes."""
    from zoo.training.run_folder import RunFolder

    config_dir = line.flags.get("--config-dir")
    again = repetitions(plan.recipes)
    shared = Jobs(
        train,
        folder.resolve(),
        swept=plan.swept,
        config_dir=config_dir,
        trusted=line.trusted,
        also=tuple(line.also()),
        retry="failed" in line.options,
    )

    def job(_: Any) -> float | None:
        config = HydraConfig.get()
        number = config.job.num
        if number in again:
            print(f"\njob {number}: is job {again[number]} again, seed included; not run twice")
            return None
        jobs = shared
        if config.runtime.choices["hydra/launcher"] == "joblib":
            jobs = replace(shared, train=partial(on_its_gpu, train, number))
        try:
            return jobs.run(number, list(config.overrides.task))
        except Interrupted as error:
            if not requeue(error):
                raise
            return WORST

    interruption: BaseException | None = None
    is_launched = True
    words = ["train.py", "--multirun", *plan.words, *search_path(config_dir)]
    arguments, sys.argv = sys.argv, words
    sys.argv.append(f"hydra.sweep.dir={quoted(str(folder.resolve()))}")
    with RunFolder(folder).lock():
        try:
            decorated = hydra.main(
                version_base="1.3", config_path=str(CONFIGS), config_name="train"
            )
            with importable():
                decorated(job)()
        except (Interrupted, KeyboardInterrupt) as error:
            interruption = error
        except SystemExit:  # A launcher has failed, and Hydra has said why.
            is_launched = False
        finally:
            sys.argv = arguments
        rows = collect(folder)
    print(table(rows))
    print(f"\nlook at it:  {installed('tensorboard')} --logdir {shlex.quote(relative(folder))}")
    states = [row["state"] for row in rows]
    done = states.count("finished") + states.count("failed")
    go_on = f"{command('train.py')} {_resuming(line, folder, plan)}"
    if len(plan.recipes) - len(again) > done:
        print(f"go on:       {go_on}")
    if "failed" in states:
        print(f"try again:   {go_on} failed=retry")
    print(f"{relative(folder / 'sweep.csv')}\n{relative(folder)}", flush=True)
    if interruption is not None:
        return report(interruption)
    return 0 if is_launched and all(state == "finished" for state in states) else 1


def _resuming(line: CommandLine, folder: Path, plan: Plan) -> str:
    """The words that a sweep goes on with."""
    return shlex.join([f"resume={relative(folder)}", *line.also(), *plan.hydra])
