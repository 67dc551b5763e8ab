"""Pruning: a trial that does worse than the others did as early ends before its time."""

from typing import TYPE_CHECKING, Any

from zoo.training.callback import Callback, Run

if TYPE_CHECKING:
    from optuna.trial import Trial

PRUNED = "pruned"


class Pruning(Callback):
    """Reports every validation to a trial, and stops the run when its pruner says so.

    What is compared is the monitored metric after the same number of validations.

    Args:
        trial: Optuna's.
    """

    def __init__(self, trial: "Trial") -> None:
        self._trial = trial
        self.validations = 0
        self.reason: str | None = None

    def on_evaluation_end(self, trainer: Run, split: str, metrics: dict[str, float]) -> None:
        if split != "val":
            return
        self.validations += 1
        value = metrics[trainer.monitor]
        known = self._trial.study.get_trials(deepcopy=False)[self._trial.number]
        if self.validations not in known.intermediate_values:  # Else a resumed run repeats it.
            self._trial.report(value, self.validations)
        is_over = trainer.stopped or trainer.step >= trainer.total_steps
        if not is_over and self._trial.should_prune():
            self.reason = f"{PRUNED} after {self.validations} validations"
            trainer.stop(self.reason)

    def reason_to_stop(self, trainer: Run) -> str | None:
        return self.reason

    def state_dict(self) -> dict[str, Any]:
        return {"validations": self.validations, "reason": self.reason}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.validations, self.reason = state["validations"], state["reason"]
