"""Sweeps: every combination is checked before the first run, and no failing run stops the others.

Hydra expands and launches (its launchers for Slurm and Ray included); each job composes its own
configuration by the same strict path as a single run.
"""

import shlex
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig

from zoo.app.commands import installed, relative
from zoo.app.failures import report
from zoo.app.place import Train, before_training
from zoo.app.sweep_checks import build_all, naming_job, repetitions
from zoo.app.sweep_jobs import Jobs
from zoo.app.sweep_table import collect, table
from zoo.config.command_line import CommandLine
from zoo.config.compose import compose, compose_plain
from zoo.config.overrides import expand, parse, prepare, quoted, search_path
from zoo.config.paths import CONFIGS
from zoo.training.interruption import Interrupted


def sweep(train: Train, line: CommandLine) -> int:
    """Runs every combination of the command line's comma-separated values.

    Returns:
        0, or 1 if a run failed.

    Raises:
        ConfigError: any combination is wrong; then none has run.
    """
    from zoo.training.run_folder import RunFolderError, folder_of_now

    config_dir = line.flags.get("--config-dir")
    words = prepare(line.overrides, config_dir, sweep=True)
    ours = [word for word in words if not word.startswith("hydra")]
    compose_plain([word for word in words if word.startswith("hydra")], config_dir)
    searched = any(word.startswith("hydra/sweeper") for word in words)
    if searched:
        # The sweeper chooses the values: what can be checked beforehand is everything else.
        jobs = [[o.input_line or "" for o in parse(ours) if not o.is_sweep_override()]]
    else:
        jobs = expand(ours)
    recipes = []
    with before_training():
        for number, combination in enumerate(jobs):
            with naming_job(number, len(jobs)):
                recipes.append(
                    compose(combination, config_dir=config_dir, trusted=line.trusted, default=False)
                )
        # Another machine may have other devices and data: there the jobs themselves find out.
        if len(recipes) > 1 and not any(word.startswith("hydra/launcher") for word in words):
            build_all(train, recipes)
    again = repetitions(recipes)
    names = list(dict.fromkeys(recipe.settings.name for recipe in recipes))
    parent = Path(recipes[0].settings.paths.runs_dir) / "-".join(names)[:80]
    try:
        folder = folder_of_now(parent, "sweep-")
    except OSError as error:
        raise RunFolderError(f"cannot make a folder in {parent} ({error.strerror})") from error
    shared = Jobs(
        train,
        folder.resolve(),
        swept=frozenset(o.key_or_group for o in parse(ours) if o.is_sweep_override()),
        config_dir=config_dir,
        trusted=line.trusted,
        also=tuple(line.also()),
    )

    def job(_: Any) -> float | None:
        config = HydraConfig.get()
        number = config.job.num
        if number in again:
            print(f"\njob {number}: is job {again[number]} again, seed included; not run twice")
            return None
        return shared.run(number, list(config.overrides.task))

    interruption: BaseException | None = None
    arguments, sys.argv = sys.argv, ["train.py", "--multirun", *words, *search_path(config_dir)]
    sys.argv.append(f"hydra.sweep.dir={quoted(str(folder.resolve()))}")
    try:
        decorated = hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="train")
        decorated(job)()
    except (Interrupted, KeyboardInterrupt) as error:
        interruption = error
    finally:
        sys.argv = arguments
    rows = collect(folder)
    print(table(rows))
    print(f"\nlook at it:  {installed('tensorboard')} --logdir {shlex.quote(relative(folder))}")
    print(f"{relative(folder / 'sweep.csv')}\n{relative(folder)}", flush=True)
    if interruption is not None:
        return report(interruption)
    return 1 if any(row["state"] != "finished" for row in rows) else 0
