"""Where the folder of a run is, and what is in it from the beginning."""

import contextlib
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.app.commands import command, printable, relative
from zoo.app.learned import LEARNED, digest
from zoo.app.processes import is_first, launched, world
from zoo.config.errors import ConfigError, as_config_error
from zoo.config.recipe import Recipe
from zoo.training.interruption import Interrupted

if TYPE_CHECKING:
    import torch

    from zoo.data.module import DataModule
    from zoo.training.callback import Callback
    from zoo.training.plan import Plan
    from zoo.training.run_folder import RunFolder
    from zoo.training.trainer import Trainer


NOTHING = "nothing was trained, and no run folder was made"


@contextlib.contextmanager
def before_training() -> Iterator[None]:
    """Has an interruption say that there is nothing yet."""
    try:
        yield
    except (Interrupted, KeyboardInterrupt) as error:
        error.add_note(NOTHING)
        raise


@dataclass
class RunLocation:
    """Where the folder of one run is, or will be once everything is built.

    Attributes:
        parent: folder for a new run folder.
        name: its name; None: the time.
        overrides: words of the command line, for `overrides.yaml`.
        also: its other words, which the same run needs again: `--config-dir` and `trusted=`.
        folder: the run folder, once there is one.
        resume: whether it was there before.
        checkpoint: what a resumed run goes on from.
        changes: words of the command line that change something of a resumed run.
        sweep: the folder of the sweep that the run is a job of.
        callbacks: besides those of its configuration.
        results: of the run, once it is finished.
        next_steps: programs that make sense after it, see `Task.next_steps`.
        notes: what has been found out before it is built, a line each.
    """

    parent: Path
    name: str | None = None
    overrides: Sequence[str] = ()
    also: Sequence[str] = ()
    folder: "RunFolder | None" = None
    resume: bool = False
    checkpoint: str = "last"
    changes: Sequence[str] = ()
    sweep: Path | None = None
    callbacks: Sequence["Callback"] = ()
    results: dict[str, Any] = field(default_factory=dict)
    next_steps: Sequence[str] = ()
    notes: Sequence[str] = ()

    def run(self, train: "Train", recipe: Recipe) -> None:
        """Trains here; a run that is stopped says how it goes on, unless its sweep does."""
        try:
            self.results = train(recipe, self)
        except (Interrupted, KeyboardInterrupt) as error:
            if self.sweep is None:
                error.add_note(self._how_it_goes_on())
            raise

    def _how_it_goes_on(self) -> str:
        if self.folder is None:
            return NOTHING
        path = relative(self.folder.path)
        if not (self.folder.path / "checkpoints" / "last.pt").exists():
            return f"there is no checkpoint yet in {path}"
        trusted = [word for word in self.also if word.startswith("trusted=")]
        several = f" (with torchrun, as {world()} processes)" if world() > 1 else ""
        words = shlex.join([f"resume={path}", *trusted])
        return f"go on with it:  {command('train.py')} {words}{several}"

    @property
    def kept(self) -> Path | None:
        """The folder of a run that goes on."""
        return self.folder.path if self.folder and self.resume else None

    def begin_again(self, folder: Path) -> None:
        """Takes a folder in which a run has failed before its first checkpoint.

        What it has written is put aside, into `failed-<number>` below it.
        """
        from zoo.training.run_folder import RunFolder

        self.folder = RunFolder(folder)
        if is_first():
            self.folder.put_aside()

    def set_up_data(
        self, recipe: Recipe, device: "torch.device", part: tuple[int, int] = (0, 1)
    ) -> "DataModule":
        """The data of the run, set up, with what the run has learned from them before.

        Args:
            recipe: the run's.
            device: where the batches are.
            part: which process of how many.

        Raises:
            ConfigError: the data refuse a value, or a file of what was learned is damaged.
        """
        from zoo.app.build import build_data

        data = build_data(recipe, self.kept)
        with as_config_error("data"):
            data.setup(seed=recipe.settings.seed, device=device, part=part)
        return data

    def all_batches(
        self, recipe: Recipe, device: "torch.device"
    ) -> Callable[[], Iterator[Any]] | None:
        """Gives the training batches whole; None where there is one process, which has them so."""

        def batches() -> Iterator[Any]:
            yield from self.set_up_data(recipe, device).batches("train", 0)

        return batches if world() > 1 else None

    @contextlib.contextmanager
    def open(
        self, recipe: Recipe, device: "torch.device", data: "DataModule"
    ) -> Iterator["RunFolder | None"]:
        """Makes the run folder, or takes up what is there and leaves it as it is; locked.

        Of several processes the first does; the others have none.

        Raises:
            ConfigError: the run goes on, and its data have become more or fewer.
        """
        from zoo.training.run_folder import RunFolder, RunFolderError

        if not is_first():
            yield None
            return
        if self.folder is None:
            folder = RunFolder.create(self.parent, self.name)
            try:
                folder.reserve()
            except RunFolderError:
                folder.path.rmdir()  # Nothing has been written, and nothing can be.
                raise
            self.folder = folder
        with self.folder.lock():
            self.folder.remember(**launched())
            if self.resume and (change := change_of_data(self.folder, data)):
                raise ConfigError(f"resume={self.folder.path}: {change}, or begin a new run")
            try:
                yield self.folder
            except OSError as error:
                if not (self.folder.path / "status.json").exists():  # No run has begun to report.
                    with contextlib.suppress(OSError):
                        self.folder.status("failed", error=f"{type(error).__name__}: {error}")
                raise

    def describe(
        self, recipe: Recipe, data: "DataModule", trainer: "Trainer", notes: Sequence[str]
    ) -> None:
        """Writes all that the run is rebuilt from, once it is sure to begin, or to go on.

        Args:
            recipe: the run's.
            data: its data, set up.
            trainer: its trainer.
            notes: what the user is to know of it, in lines.
        """
        if not is_first():
            return
        import yaml

        from zoo.app.other_runs import keep_other_runs
        from zoo.config.run_config import add_words, dump
        from zoo.training.run_folder import environment

        assert self.folder is not None
        device, step = str(trainer.device), trainer.step
        self.next_steps = trainer.task.next_steps(data)
        self.folder.write("config.yaml", dump(recipe.config))
        learned = {name: digest(text) for name, text in data.artifacts().items()}
        self.folder.write("data.json", {**samples(data), LEARNED: learned})
        if not self.resume:
            keep_other_runs(recipe.task.options, self.folder.path)
            words = yaml.safe_dump(list(self.overrides), sort_keys=False)
            self.folder.write("overrides.yaml", words)
        if self.checkpoint != "last":
            self.folder.log(f"going on from {Path(self.checkpoint).name}, step {step}")
        if self.resume and self.changes:
            file = self.folder.path / "overrides.yaml"
            before = file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""
            self.folder.write("overrides.yaml", add_words(before, step, self.changes))
            self.folder.log(f"from step {step} on: {' '.join(self.changes)}")
        self.folder.write("environment.json", environment(device))
        for name, text in data.artifacts().items():
            self.folder.write(name, text)
        verb = f"going on from step {step:,}" if self.resume else "training"
        several = f" in {world()} processes" if world() > 1 else ""
        where = f"{relative(self.folder.path)} on {device}{several}"
        kept = relative(Path(recipe.settings.paths.data_dir))
        print(f"{verb} in {where}, data in {kept}", flush=True)
        for note in [*self.notes, *notes]:
            self.folder.announce(printable(note))  # Class names come from files.

    def require_same_selection(self, trainer: "Trainer") -> None:
        """Refuses to go on with another metric, or direction, than has selected checkpoints so far.

        `auto` and the name of what it stands for are the same.

        Raises:
            ConfigError: they are not.
        """
        from zoo.config.compose import complete, run_settings
        from zoo.config.resuming import COMPARED
        from zoo.config.run_config import load
        from zoo.training.selection import Selection

        if self.folder is None or not self.resume:
            return
        stored = run_settings(complete(load(self.folder.path / "config.yaml")))
        is_validated = "val" in trainer.data.splits
        was = Selection(trainer.task, stored.callbacks.checkpoint, is_validated=is_validated)
        if (was.monitor, was.mode) != (trainer.monitor, trainer.mode):
            word = f"callbacks.checkpoint.monitor={trainer.monitor} ({trainer.mode})"
            raise ConfigError(f"{word} in place of {was.monitor} ({was.mode}): {COMPARED}")

    def require_work(self, trainer: "Trainer") -> None:
        """Refuses to go on with a run for which nothing is left to do, before anything is written.

        Raises:
            ConfigError: the run has taken more steps than it now would have, or is finished and
                would end where it stands.
        """
        if not is_first():
            return
        assert self.folder is not None
        step, total = trainer.step, trainer.total_steps
        if step > total:
            raise ConfigError(
                f"{trainer.plan.ends_by} ends this run after {total:,} steps, and it has taken "
                f"{step:,}; give more, or go on from an earlier checkpoint (checkpoint=best)"
            )
        if self.folder.read("status.json").get("state") == "finished" and trainer.ended_by:
            words = " ".join(self.changes)
            raise ConfigError(
                f"{words or 'resume'}: nothing to do, and nothing is changed: this run is "
                f"finished{extension(trainer.ended_by)}"
            )


def extension(ended_by: str) -> str:
    """What has ended a finished run and which setting lets it go on, to be put behind a clause."""
    key, equals, _ = ended_by.partition("=")
    if not equals:  # A callback's own words, or the results of an earlier version.
        said = f", ended by {ended_by}" if ended_by else ""
        return f"{said}; extend it with trainer.epochs=<more> or trainer.steps=<more>"
    return f", ended by {ended_by}; {key}=<more> lets it go on"


def require_effect(plan: "Plan", words: Sequence[str]) -> None:
    """Refuses the one limit that a command line gives, if another one ends the run before it.

    Raises:
        ConfigError: so it is.
    """
    given = [k for k in plan.limits if any(w.lstrip("+").startswith(f"{k}=") for w in words)]
    if len(given) == 1 and plan.limits[given[0]] > plan.total_steps:
        other = plan.ends_by.partition("=")[0]
        raise ConfigError(
            f"{given[0]} would end this run after {plan.limits[given[0]]:,} steps, but "
            f"{plan.ends_by} ends it before, after {plan.total_steps:,}; set {other} as well "
            "(null: no limit)"
        )


def samples(data: "DataModule") -> dict[str, int]:
    """How many samples each split of a data module has that has been set up."""
    return {split: loader.num_samples for split, loader in data.loaders.items()}


def change_of_data(folder: "RunFolder", data: "DataModule") -> str:
    """What is wrong with the data of a run, if they have become more or fewer since it began.

    Where the splits are parts of the same files, other samples would now be in each of them.
    """
    before, now = folder.read("data.json"), samples(data)
    changes = [
        f"{count:,} samples in {split}, where there were {before[split]:,}"
        for split, count in now.items()
        if isinstance(before.get(split), int) and before[split] != count
    ]
    return f"these data have {' and '.join(changes)}: put them back as they were" if changes else ""


Train = Callable[[Recipe, RunLocation], dict[str, Any]]
"""Builds and trains one run: of a recipe and a location."""
