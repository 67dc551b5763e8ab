"""A search in its folder: what it is made of, Optuna's study of it, and its trials.

    runs/<name>/search-<time>/
      search.yaml        the space, the other words, seeds and settings
      study.db           Optuna's storage (SQLite)
      0-seed-1/          a run folder like any other, for each trial and seed (0/ for one seed)
      trials.csv         written at the end

A trial that was interrupted stays `running` in the storage; whoever opens the search again goes on
with its runs. The random numbers of a trial come from its number, so that a search that was stopped
suggests what it would have suggested, as long as one process works on it.
"""

import math
import statistics
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from filelock import FileLock

from zoo.app.place import RunLocation, Train
from zoo.app.searching.pruning import PRUNED, Pruning
from zoo.app.searching.space import Space, read_space
from zoo.app.sweeps.jobs import Jobs
from zoo.config.command_line import CommandLine
from zoo.config.errors import ConfigError, one_line
from zoo.config.recipe import Recipe
from zoo.config.yaml_files import load_yaml
from zoo.training.own_files import replacing

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import Trial, TrialState

FILE, STUDY = "search.yaml", "study.db"
STATES = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
SAMPLERS = ("tpe", "random")
PRUNERS = ("median", "hyperband", "none")


@dataclass(frozen=True)
class Search:
    """What a search is made of.

    Attributes:
        space: content of the file of the space.
        words: of the command line, that all runs have in common.
        seeds: of the runs of each trial.
        trials: how many there are to be, failed ones included.
        sampler: which of `SAMPLERS` chooses the values.
        pruner: which of `PRUNERS` ends trials early.
        monitor: the validation metric that is looked at.
        mode: whether less (`min`) or more (`max`) of it is better.
    """

    space: dict[str, Any]
    words: list[str]
    seeds: list[str]
    trials: int
    sampler: str
    pruner: str
    monitor: str
    mode: str


def store(search: Search, folder: Path) -> None:
    """Writes a search into its folder."""
    with replacing(folder / FILE) as file:
        file.write(yaml.safe_dump(asdict(search), sort_keys=False, allow_unicode=True).encode())


def stored(folder: Path) -> Search:
    """The search of a folder.

    Raises:
        ConfigError: there is none, or its file is damaged.
    """
    try:
        search = Search(**load_yaml(folder / FILE))
    except (OSError, TypeError) as error:
        raise ConfigError(f"resume={folder}: is not the folder of a search ({FILE})") from error
    kinds = {"words": list, "seeds": list, "trials": int, "monitor": str, "mode": str}
    wrong = [name for name, kind in kinds.items() if not isinstance(getattr(search, name), kind)]
    wrong += ["sampler"] if search.sampler not in SAMPLERS else []
    wrong += ["pruner"] if search.pruner not in PRUNERS else []
    if wrong:
        raise ConfigError(f"{folder / FILE}: {wrong[0]} is damaged")
    return search


def _storage(folder: Path) -> Any:
    import optuna

    wait = {"connect_args": {"timeout": 60}}  # for another worker, which is writing
    url = f"sqlite:///{folder.resolve() / STUDY}"
    return optuna.storages.RDBStorage(url, engine_kwargs=wait)


def create_study(folder: Path, search: Search) -> None:
    """Makes the storage of a search, with its study."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    optuna.create_study(
        study_name=folder.name,
        storage=_storage(folder),
        direction="minimize" if search.mode == "min" else "maximize",
    )


def open_study(folder: Path, search: Search) -> "Study":
    """The study of a search.

    Raises:
        ConfigError: its file is not there, or damaged.
    """
    import optuna

    if not (folder / STUDY).exists():  # Optuna would begin another.
        raise ConfigError(f"{folder / STUDY} is not there, and with it the trials of this search")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pruners: dict[str, Any] = {
        "median": optuna.pruners.MedianPruner,
        "hyperband": optuna.pruners.HyperbandPruner,
        "none": optuna.pruners.NopPruner,
    }
    pruner = pruners[search.pruner]()
    try:
        return optuna.load_study(study_name=None, storage=_storage(folder), pruner=pruner)
    except Exception as error:  # SQLite's, SQLAlchemy's, Optuna's
        raise ConfigError(f"{folder / STUDY} cannot be read: {one_line(error)}") from error


def _with_callbacks(
    train: Train, callbacks: Sequence[Any], recipe: Recipe, place: RunLocation
) -> dict[str, Any]:
    place.callbacks = callbacks
    return train(recipe, place)


class Worker:
    """Runs trials of a search until there are as many as it is to have.

    Args:
        folder: of the search.
        train: builds and trains one run.
        line: what is never taken from a folder: the user's own groups and trusted packages.
        left: numbers of the trials to go on with.
        words: besides those of the search, of its runs.
    """

    def __init__(
        self,
        folder: Path,
        train: Train,
        line: CommandLine,
        *,
        left: Sequence[int] = (),
        words: Sequence[str] = (),
    ) -> None:
        self.folder, self.train, self.line = folder, train, line
        self.search = stored(folder)
        self.space: Space = read_space(self.search.space)
        self.study = open_study(folder, self.search)
        self._left, self._words = list(left), list(words)

    def work(self) -> None:
        """Runs trial after trial; an interruption leaves one of them `running`."""
        while (trial := self._next()) is not None:
            self._run(trial)

    def _next(self) -> "Trial | None":
        import optuna

        with FileLock(self.folder / ".next"):  # Else two workers would both see room for the last.
            trials = self.study.get_trials(deepcopy=False)
            if self._left:
                number = self._left.pop(0)
                self.study.sampler = self._sampler(number)
                return optuna.trial.Trial(self.study, trials[number]._trial_id)
            if len(trials) >= self.search.trials:
                return None
            self.study.sampler = self._sampler(len(trials))
            return self.study.ask()

    def _sampler(self, number: int) -> Any:
        import optuna

        seed = zlib.crc32(f"{self.search.seeds[0]} {number}".encode())
        kinds: dict[str, Any] = {
            "tpe": optuna.samplers.TPESampler,
            "random": optuna.samplers.RandomSampler,
        }
        return kinds[self.search.sampler](seed=seed)

    def _run(self, trial: "Trial") -> None:
        from optuna.trial import TrialState

        words = self.space.words(lambda parameter: parameter.suggest(trial))
        trial.set_user_attr("words", words)
        for other in self.study.get_trials(deepcopy=False, states=[TrialState.COMPLETE]):
            if other.user_attrs["words"] == words:
                trial.set_user_attr("values", other.user_attrs["values"])
                trial.set_user_attr("repeats", other.number)
                print(f"\ntrial {trial.number}: is trial {other.number} again; not run twice")
                self._tell(trial, TrialState.COMPLETE, other.value)
                return
        values: list[float] = []
        for seed in self.search.seeds:
            results = self._train(trial, words, seed, is_first=not values)
            if results is None:
                self._tell(trial, TrialState.FAIL)
                return
            if results["ended_by"].startswith(PRUNED):
                self._tell(trial, TrialState.PRUNED)
                return
            values.append(results["val"][self.search.monitor])
        trial.set_user_attr("values", values)
        self._tell(trial, TrialState.COMPLETE, statistics.fmean(values))

    def _tell(self, trial: "Trial", state: "TrialState", value: float | None = None) -> None:
        known = self.study.tell(trial, value, state)
        reached = "" if known.value is None else f", val/{self.search.monitor} {known.value:.4g}"
        print(f"trial {trial.number}: {STATES[state.name]}{reached}", flush=True)

    def _train(
        self, trial: "Trial", words: Sequence[str], seed: str, *, is_first: bool
    ) -> dict[str, Any] | None:
        """The results of one run of a trial; None: it has failed, and the trial says how."""
        from zoo.training.run_folder import RunFolder

        search = self.search
        jobs = Jobs(
            partial(_with_callbacks, self.train, [Pruning(trial)] if is_first else []),
            self.folder.resolve(),
            swept=frozenset({"seed"} if len(search.seeds) > 1 else ()),
            config_dir=self.line.flags.get("--config-dir"),
            trusted=self.line.trusted,
            also=tuple(self.line.also()),
            noun="trial",
        )
        given = [*search.words, *self._words, *words, f"seed={seed}"]
        jobs.run(trial.number, given)
        run = RunFolder(self.folder / jobs.name(trial.number, given))
        status, results = run.read_status(), run.read("results.json")
        error = status.get("error") if status.get("state") != "finished" else None
        value = results.get("val", {}).get(search.monitor)
        if error is None and (value is None or not math.isfinite(value)):
            error = f"val/{search.monitor} is {value}"
        if error is not None:
            trial.set_user_attr("error", f"seed {seed}: {error}")
            return None
        return results
