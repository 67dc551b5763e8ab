"""What a search ends with: its trials, which parameters mattered, and how to train the best."""

import importlib.util
import shlex
import statistics
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoo.app.commands import command, installed, relative
from zoo.app.searching.study import STATES, STUDY, Search, open_study, stored
from zoo.app.sweeps.rows import aligned, columns_of, write_csv


def collect(folder: Path) -> list[dict[str, Any]]:
    """One row for each trial, best first, written to `trials.csv` too.

    Those that are complete come first, then the pruned ones by the last value they had.
    """
    search = stored(folder)
    sign = 1 if search.mode == "min" else -1
    rows = []
    for trial in open_study(folder, search).get_trials(deepcopy=False):
        attributes = trial.user_attrs
        values = attributes.get("values", [])
        row: dict[str, Any] = {
            "trial": trial.number,
            "state": STATES.get(trial.state.name, "interrupted"),
            f"val/{search.monitor}": "" if trial.value is None else trial.value,
        }
        if len(search.seeds) > 1:
            row["deviation"] = statistics.stdev(values) if len(values) > 1 else ""
        row |= dict(word.partition("=")[::2] for word in attributes.get("words", []))
        row["repeats"] = attributes.get("repeats", "")
        row["error"] = attributes.get("error", "")
        rows.append(row)

    order = ["complete", "pruned", "failed", "interrupted"]

    def key(row: dict[str, Any]) -> tuple[int, float, int]:
        value = row[f"val/{search.monitor}"]
        return order.index(row["state"]), 0.0 if value == "" else sign * value, row["trial"]

    rows.sort(key=key)
    write_csv(folder / "trials.csv", rows)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The rows for a terminal, and what failed."""
    shown = [c for c in columns_of(rows) if c not in ("repeats", "error")]
    lines = aligned([shown, *([_cell(row.get(c, "")) for c in shown] for row in rows)])
    for row in rows:
        if row["repeats"] != "":
            lines.append(f"trial {row['trial']} is trial {row['repeats']} again")
        if row["error"]:
            lines.append(f"trial {row['trial']} {row['state']}: {row['error'][:150]}")
    return "\n".join(["", *lines])


def _cell(value: Any) -> str:
    """A value in few characters; those of the space are text."""
    try:
        is_long = isinstance(value, float) or len(str(float(value))) > 6
    except ValueError:
        return str(value)
    return f"{float(value):.4g}" if is_long else str(value)


def importance(folder: Path) -> dict[str, float]:
    """How far each parameter decides whether a trial is among the best, as shares of one.

    By PED-ANOVA (Watanabe et al., 2023, https://arxiv.org/abs/2304.10255), Optuna's default; {}
    where there are too few trials for it.
    """
    import optuna

    study = open_study(folder, stored(folder))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return optuna.importance.get_param_importances(study)
    except (ValueError, RuntimeError):
        return {}


def _train_best(search: Search, also: Sequence[str], words: Sequence[str]) -> str:
    """The command that trains the best combination again."""
    given = [*also, *search.words, *words, f"seed={search.seeds[0]}"]
    return f"{command('train.py')} {shlex.join(given)}"


def conclude(folder: Path, also: Sequence[str]) -> bool:
    """Prints the table, what mattered and what to do next.

    Args:
        folder: of the search.
        also: words besides the overrides that its runs need, see `CommandLine.also`.

    Returns:
        Whether any trial is complete.
    """
    from optuna.trial import TrialState

    search = stored(folder)
    rows = collect(folder)
    print(table(rows))
    complete = [row for row in rows if row["state"] == "complete"]
    if len(complete) > 1 and (shares := importance(folder)):
        print("\nimportance:  " + "  ".join(f"{key} {share:.2f}" for key, share in shares.items()))
    if complete:
        study = open_study(folder, search)
        (best,) = (
            t
            for t in study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
            if t.number == complete[0]["trial"]
        )
        print(f"\ntrain the best:  {_train_best(search, also, best.user_attrs['words'])}")
    print(f"look at it:      {installed('tensorboard')} --logdir {shlex.quote(relative(folder))}")
    missing = importlib.util.find_spec("optuna_dashboard") is None
    hint = "  (pip install optuna-dashboard)" if missing else ""
    url = f"sqlite:///{relative(folder / STUDY)}"
    print(f"                 optuna-dashboard {shlex.quote(url)}{hint}")
    print(f"{relative(folder / 'trials.csv')}\n{relative(folder)}", flush=True)
    return bool(complete)
