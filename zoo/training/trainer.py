"""The training loop: devices, precision, accumulation, clipping, stepping, evaluation, checkpoints.

It knows no task. A task yields objectives (Goodfellow's discriminator and generator, or the one
loss of an ordinary task), and the trainer takes the update of each before it asks for the next.
Read `fit`,
`_train`, `_step` and `_update` in this order; `state_dict` is everything that changes the next
step.
"""

import math
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from itertools import islice
from typing import Any, Literal

import torch
from torch import Tensor, nn

from zoo.tasks.task import Task, evaluation_mode
from zoo.training.averaging import WeightAverage
from zoo.training.callbacks import Callback, MetricsFile
from zoo.training.checkpoint import CheckpointError, CheckpointFolder, read, require_space
from zoo.training.curve import TrainingCurve
from zoo.training.evaluation import SEED, measure
from zoo.training.freezing import training_mode
from zoo.training.interruption import Interrupted, Signals
from zoo.training.optimizers import load_optimizer
from zoo.training.overfit import FirstBatch
from zoo.training.precision import resolve_device, resolve_precision
from zoo.training.reproducibility import (
    backends,
    isolated,
    random_state,
    seed_everything,
    set_random_state,
)
from zoo.training.run_folder import HEARTBEAT_SECONDS, RunFolder
from zoo.training.schedules import Constant, Schedule
from zoo.training.settings import CheckpointSettings, TrainerSettings
from zoo.training.update import NonFiniteError, Updater

_POSITION = ("epoch", "batch", "step", "updates", "evaluated_at", "seconds")


class Trainer:
    """Trains the networks of a task on the batches of a data module.

    Args:
        task: what is learned.
        data: where the batches come from, set up (see `zoo.data.module.DataModule`).
        optimizers: one optimizer per network of the task, by the network's name; a single optimizer
            for a task with one network.
        schedule: factor of the learning rates; constant if None.
        settings: how long, where and how precisely.
        seed: seed of dropout and noise (the order of the data has the seed given to its setup).
        checkpoints: when to save, and what to monitor.
        config: plain configuration, stored in every checkpoint.

    Raises:
        ValueError: the optimizers are not those of the task's networks, the data have no training
            split, or the device is not there.
    """

    def __init__(
        self,
        task: Task,
        data: Any,
        optimizers: torch.optim.Optimizer | Mapping[str, torch.optim.Optimizer],
        *,
        schedule: Schedule | None = None,
        settings: TrainerSettings | None = None,
        seed: int = 0,
        checkpoints: CheckpointSettings | None = None,
        config: dict[str, Any] | None = None,
    ) -> None:
        self.settings = settings or TrainerSettings()
        if "train" not in data.splits:
            raise ValueError("the data have no training split")
        self.data = FirstBatch(data) if self.settings.overfit else data
        self.task, self.seed, self.config = task, seed, config
        self.networks: dict[str, nn.Module] = task.networks()
        if isinstance(optimizers, torch.optim.Optimizer):
            optimizers = dict.fromkeys(self.networks, optimizers)
        if set(optimizers) != set(self.networks) or len(set(map(id, optimizers.values()))) != len(
            self.networks
        ):
            raise ValueError(
                f"optimizers must be one for each of {', '.join(self.networks)}, "
                f"not {', '.join(optimizers)}"
            )
        self.optimizers = dict(optimizers)
        self.schedule = schedule or Constant()
        self.checkpoint_settings = checkpoints or CheckpointSettings()
        self.monitor, self.mode = self._monitored()
        self.folder: RunFolder | None = None
        self.checkpoints: CheckpointFolder | None = None
        self.callbacks: list[Callback] = []
        self.signals = Signals()
        # What has been done so far; `_POSITION` names what of it is saved.
        self.epoch = self.batch = self.step = self.updates = 0
        self.evaluated_at, self.seconds = -1, 0.0
        self._clock: float | None = None
        self._saved_at = self._look_at = 0.0
        self._save_every = self.checkpoint_settings.every_steps or sys.maxsize
        self._evaluate_every = self.settings.evaluate_every or sys.maxsize
        self.stopped = self.layer_gradients = False
        self.last_metrics: dict[str, float] = {}
        self._prepare_networks()
        self._plan()

    def _monitored(self) -> tuple[str, Literal["min", "max"]]:
        wanted = self.checkpoint_settings
        monitor = self.task.monitor if wanted.monitor == "auto" else wanted.monitor
        if wanted.mode != "auto":
            return monitor, wanted.mode
        return monitor, self.task.mode if monitor == self.task.monitor else "min"

    def _prepare_networks(self) -> None:
        """Places, formats and compiles the networks, and makes what a step needs."""
        settings, model = self.settings, self.task.model
        self.device = resolve_device(settings.device)
        dtype = resolve_precision(settings.precision, self.device)
        last = settings.channels_last
        if last == "auto":
            last = any(isinstance(m, nn.Conv2d) for m in model.modules())
        model.to(self.device)
        if last:
            model.to(memory_format=torch.channels_last)
        self.task.to(self.device)
        if settings.compile:
            for network in self.networks.values():
                network.compile()  # In place, so that the keys of its state stay what they are.
        decay = settings.ema_decay
        self.average = WeightAverage(model, decay) if decay is not None else None
        self.updater = Updater(
            model,
            self.optimizers,
            device=self.device,
            dtype=dtype,
            clip_norm=settings.clip_norm,
            clip_value=settings.clip_value,
        )
        self.curve = TrainingCurve(list(self.networks), self.device)

    def _plan(self) -> None:
        settings = self.settings
        batches = self.data.num_batches("train")
        if settings.limit_train_batches is not None:
            batches = min(batches, settings.limit_train_batches)
        self.batches_per_epoch = batches
        self.steps_per_epoch = math.ceil(batches / settings.accumulate)
        limits = [settings.steps, settings.epochs and settings.epochs * self.steps_per_epoch]
        self.total_steps = min(limit for limit in limits if limit is not None)
        self.schedule.bind(total_steps=self.total_steps, steps_per_epoch=self.steps_per_epoch)

    # ------------------------------------------------------------------------------- the run

    def fit(
        self,
        *,
        folder: RunFolder | None = None,
        callbacks: Sequence[Callback] = (),
        resume: bool = False,
    ) -> dict[str, Any]:
        """Trains to the end, evaluates the selected weights, and returns the results.

        Afterwards the model holds the selected weights: those of the best checkpoint, or the last
        ones where there is no folder or no validation split.

        Args:
            folder: where checkpoints, metrics and results go; None: nowhere.
            callbacks: what happens beside the loop.
            resume: go on from the newest checkpoint of the folder.

        Returns:
            `{"val": {...}, "test": {...}, "parameters": n, "steps": n, "selected_step": n,
            "seconds": s, "samples_per_second": r}`.

        Raises:
            Interrupted: a signal asked for the end; the state has been saved.
            NonFiniteError: a loss or gradient was NaN or infinite.
            CheckpointError: a checkpoint could not be written or read.
        """
        settings, results = self.settings, None
        with ExitStack() as stack:
            stack.enter_context(
                backends(deterministic=settings.deterministic, threads=settings.threads)
            )
            stack.enter_context(self.signals)
            if folder is not None:
                stack.enter_context(folder.lock())
                stack.enter_context(folder.reporting())
            self._open(folder, callbacks)
            try:
                self._begin(resume)
                self._train()
                results = self._finish()
            finally:
                self._close(results)
        return results

    def _open(self, folder: RunFolder | None, callbacks: Sequence[Callback]) -> None:
        self.folder, self.callbacks = folder, list(callbacks)
        if folder is not None:
            self.checkpoints = CheckpointFolder(
                folder.path / "checkpoints",
                mode=self.mode,
                top_k=self.checkpoint_settings.top_k,
            )
            self.callbacks.insert(0, MetricsFile(folder.path / "metrics.jsonl"))
        self._on_step_end = [
            c for c in self.callbacks if type(c).on_step_end is not Callback.on_step_end
        ]

    def _close(self, results: dict[str, Any] | None) -> None:
        failures = []
        for callback in self.callbacks:
            try:
                callback.on_fit_end(self, results)
            except Exception as error:
                failures.append(error)
        # Where there are no results, the failure that brought us here is what to report.
        if failures and results is not None:
            raise failures[0]

    def _begin(self, resume: bool) -> None:
        seed_everything(self.seed)
        if resume:
            if self.checkpoints is None:
                raise ValueError("resume needs a folder")
            self.checkpoints.clean()
            self.load_state_dict(self.checkpoints.newest())
        else:
            with isolated(SEED):
                self.task.prepare(self.data.batches("train", 0))
        for callback in self.callbacks:
            with isolated(SEED):
                callback.on_fit_start(self)
        if self.checkpoints is not None and not resume:
            self.save()
            # Optimizer state will be twice the weights; last, previous, the next one and the best.
            size = (self.checkpoints.path / "last.pt").stat().st_size
            require_space(self.checkpoints.path, 3 * size * (3 + self.checkpoints.top_k))

    def rehearse(self) -> None:
        """Puts one batch through the task and learns nothing from it.

        Raises:
            ValueError: data, model and task do not fit together, or there is no metric of the name
                that selects checkpoints.
        """
        task = self.task
        state = task.state_dict()
        try:
            with isolated(SEED), evaluation_mode(task.model), self.updater.autocast:
                for _ in task.objectives(next(iter(self.data.batches("train", 0)))):
                    pass
            task.reset()
            known = task.compute()
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            raise ValueError(
                "data, model and task do not fit together: "
                f"{' '.join(str(error).split())[:300]} (ZOO_TRACEBACK=1 shows where)"
            ) from error
        finally:
            task.load_state_dict(state)
        if "val" in self.data.splits and self.monitor not in known:
            raise ValueError(
                f"callbacks.checkpoint.monitor={self.monitor}: there is {', '.join(known)}"
            )

    def _train(self) -> None:
        try:
            self._loop()
        except Interrupted:
            self.save()
            raise

    def _loop(self) -> None:
        training_mode(self.task.model)
        self._saved_at = self._look_at = time.perf_counter()
        self._clock = self._saved_at - self.seconds
        self.curve.restart()
        self.updater.start()
        while True:
            if self.batch >= self.batches_per_epoch:
                self.epoch, self.batch = self.epoch + 1, 0
            # Before any step, so that a run killed during an evaluation repeats it.
            if self._evaluation_due():
                self._evaluate_and_save()
            if self.step >= self.total_steps or self.stopped:
                return
            for window in self._windows():
                self._step(window)
                self.step += 1
                self.batch += len(window)
                if self.step % self.settings.log_every == 0 or self.step == self.total_steps:
                    self._log_training()
                for callback in self._on_step_end:
                    callback.on_step_end(self)
                if self._pause():
                    break

    def _windows(self) -> Iterator[list[Any]]:
        """The rest of the epoch in groups of `accumulate` batches; the last may be smaller."""
        left = self.batches_per_epoch - self.batch
        batches = islice(self.data.batches("train", self.epoch, self.batch), left)
        size, clock = self.settings.accumulate, time.perf_counter
        while True:
            began = clock()
            window = list(islice(batches, size))
            self.curve.waited += clock() - began
            if not window:
                return
            yield window

    def _step(self, window: list[Any]) -> None:
        """One optimizer step of every network on a window of batches.

        The objectives of the batches advance side by side, so that k accumulated batches equal one
        large batch also where one network's loss is computed after another's update.
        """
        updater, step = self.updater, self.step + 1
        measure = step % self.settings.log_every == 0 or step == self.total_steps
        updater.set_rates(self.schedule(self.updates))
        runs = [self.task.objectives(batch) for batch in window]
        weigh, taken = len(window) > 1, True
        while True:
            loss: Tensor | None = None
            count: Tensor | int = 0
            terms = []
            for run in runs:
                with updater.autocast:
                    objective = next(run, None)
                if objective is None:
                    break
                # Unless batches are accumulated, the mean over the count is the loss itself.
                part = objective.loss * objective.count if weigh else objective.loss
                network = objective.network
                updater.backward(part, network)
                loss = part.detach() if loss is None else loss + part.detach()
                count = objective.count + count
                if objective.terms:
                    terms.append((objective.terms, objective.count))
            if loss is None:
                break
            if measure and self.layer_gradients:
                updater.measure_layers(network)
            try:
                stepped = updater.update(network, loss, count if weigh else None, measure=measure)
            except NonFiniteError as error:
                raise self._non_finite(str(error)) from None
            if stepped:
                self.curve.add(network, loss, count)
                for parts, weight in terms:
                    self.curve.add_terms(network, parts, weight)
            taken &= stepped
        updater.end_step()
        self.updates += taken
        if taken and self.average is not None:
            self.average.update()

    def _non_finite(self, what: str, behind: int = 0) -> NonFiniteError:
        """The error that names the step and its samples."""
        size, step = self.settings.accumulate, self.step + 1 - behind
        windows = self.epoch * self.steps_per_epoch + math.ceil(self.batch / size) - behind
        epoch, window = divmod(windows, self.steps_per_epoch)
        batch = window * size
        indices = self.data.loaders["train"].indices
        last = min(batch + size, self.batches_per_epoch)
        samples = [str(i) for b in range(batch, last) for i in indices(epoch, b)]
        names = ", ".join(samples[:64]) + (", ..." if len(samples) > 64 else "")
        return NonFiniteError(
            f"{what} is not finite at step {step} (epoch {epoch}, batch {batch}, training samples "
            f"{names}); the weights are those before that step. Try a "
            "smaller optimizer.lr, schedule.warmup_steps, trainer.clip_norm=1 or "
            "trainer.precision=fp32, and look at these samples"
        )

    # ---------------------------------------------------------------------------- evaluation

    def evaluate(self, split: str) -> dict[str, float]:
        """The task's metrics over a split, of the averaged weights if there are any."""

        def tell(metrics: dict[str, float]) -> None:
            self._log({"split": split, **metrics})
            for callback in self.callbacks:
                callback.on_evaluation_end(self, split, metrics)

        with self.average.applied() if self.average else nullcontext():
            return measure(
                self.task,
                islice(self.data.batches(split, 0), self.settings.limit_eval_batches),
                autocast=self.updater.autocast,
                between=self.signals.check,
                then=tell,
            )

    def _evaluation_due(self) -> bool:
        if self.step == 0 or self.evaluated_at == self.step:
            return False
        every = self.settings.evaluate_every
        regular = self.step % every == 0 if every else self.batch == 0
        return regular or self.step >= self.total_steps

    def _evaluate_and_save(self) -> None:
        self._check_flag()
        keep = False
        if "val" in self.data.splits:
            training = self._measure_training() if self.settings.train_metrics else {}
            metrics = self.evaluate("val")
            if training:  # Not before: an evaluation that is interrupted is repeated as a whole.
                self._log({"split": "train", **training})
            if self.monitor not in metrics:
                raise ValueError(
                    f"callbacks.checkpoint.monitor={self.monitor}: there is {', '.join(metrics)}"
                )
            value = metrics[self.monitor]
            self.last_metrics = metrics
            self.schedule.observe(value, self.mode)
            if self.checkpoints is not None and math.isfinite(value):
                keep = self.checkpoints.rank(value, self.step)
        self.evaluated_at = self.step
        self.save(keep=keep)

    def _measure_training(self) -> dict[str, float]:
        """Metrics on as many training batches as validation has, for the same charts."""
        limits = (self.data.num_batches("val"), self.settings.limit_eval_batches)
        count = min(limit for limit in limits if limit is not None)
        with self.average.applied() if self.average else nullcontext():
            metrics = measure(
                self.task,
                islice(self.data.batches("train", 0), min(count, self.batches_per_epoch)),
                autocast=self.updater.autocast,
                between=self.signals.check,
            )
        # The loss of training has a curve already.
        return {name: v for name, v in metrics.items() if not name.endswith("loss")}

    def stop(self, reason: str) -> None:
        """Ends training after the present evaluation."""
        if not self.stopped and self.folder is not None:
            self.folder.log(f"stopped early: {reason}")
        self.stopped = True

    def _finish(self) -> dict[str, Any]:
        metrics, step = self.last_metrics, self.step
        best = self.checkpoints.path / "best.pt" if self.checkpoints else None
        if self.checkpoints is not None and best is not None and self.checkpoints.ranking:
            state = read(best)
            metrics, step = state["metrics"], state["position"]["step"]
            self.task.model.load_state_dict(state["model"])
            self.task.load_state_dict(state["task"])
            if self.average is not None:
                self.average.load_state_dict(state["average"])
        results: dict[str, Any] = {"val": metrics} if metrics else {}
        if "test" in self.data.splits:
            results["test"] = self.evaluate("test")
        if self.average is not None:
            self.average.keep()
        results |= {
            "monitor": self.monitor,
            "mode": self.mode,
            "parameters": sum(p.numel() for p in self.task.model.parameters()),
            "steps": self.step,
            "selected_step": step,
            "seconds": round(self.seconds, 3),
            "samples_per_second": round(self.curve.items / max(self.seconds, 1e-9), 1),
        }
        if self.folder is not None:
            self.folder.write("results.json", results)
        return results

    # ------------------------------------------------------------------------------- curves

    def _log_training(self) -> None:
        """Hands the line of the training curve that has gathered on the device to the callbacks."""
        self._check_flag()
        self._tick()
        rates = {name: o.param_groups[0]["lr"] for name, o in self.optimizers.items()}
        updater = self.updater
        self._log({"split": "train", **self.curve.line(rates, updater.norms, updater.layers)})

    def _tick(self) -> None:
        """Brings the seconds of training up to now."""
        if self._clock is not None:
            self.seconds = time.perf_counter() - self._clock

    def _log(self, row: dict[str, Any]) -> None:
        epoch = self.epoch + self.batch / self.batches_per_epoch
        row = {"step": self.step, "epoch": round(epoch, 4), **row}
        for callback in self.callbacks:
            callback.on_log(self, row)

    def _check_flag(self) -> None:
        """On a GPU: reads the flag that masks updates once something was not finite."""
        masked = self.updater.check()
        if masked is not None:
            raise self._non_finite("a loss or gradient", behind=masked)

    # ---------------------------------------------------------------------------------- state

    def _pause(self) -> bool:
        """Between two steps: whether to leave the loop; looks after the rest when it is time."""
        step, signals = self.step, self.signals
        if (
            signals.stop is not None
            or signals.save
            or step % self._save_every == 0
            or time.perf_counter() > self._look_at
        ):
            self._look_after()
        return step >= self.total_steps or step % self._evaluate_every == 0

    def _look_after(self) -> None:
        """Signals, heartbeat, saves."""
        now = time.perf_counter()
        self._look_at = now + HEARTBEAT_SECONDS / 2
        self.signals.check()
        if self.folder is None:
            return
        self.folder.heartbeat(self.step)
        minutes = self.checkpoint_settings.every_minutes
        late = minutes is not None and now - self._saved_at > 60 * minutes
        if late or self.signals.save or self.step % self._save_every == 0:
            self.signals.save = False
            self.save()

    def save(self, *, keep: bool = False) -> None:
        """Writes a checkpoint; with `keep`, also as one of the best."""
        if self.checkpoints is not None:
            self._check_flag()
            self._tick()
            self.checkpoints.save(self.state_dict(), keep=keep)
            self._saved_at = time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes what happens next, as plain Python and tensors."""
        scaler = self.updater.scaler
        return {
            "config": self.config,
            "position": {name: getattr(self, name) for name in _POSITION},
            "model": self.task.model.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "optimizers": {name: o.state_dict() for name, o in self.optimizers.items()},
            "scaler": scaler.state_dict() if scaler else None,
            "schedule": self.schedule.state_dict(),
            "task": self.task.state_dict(),
            "callbacks": {name: c.state_dict() for name, c in self._named_callbacks()},
            "curve": self.curve.state_dict(),
            "metrics": self.last_metrics,
            "random": random_state(),
        }

    def _named_callbacks(self) -> Iterator[tuple[str, Callback]]:
        """The callbacks by class; the second and third of a class by their number too."""
        seen: Counter[str] = Counter()
        for callback in self.callbacks:
            name = type(callback).__name__
            seen[name] += 1
            yield name if seen[name] == 1 else f"{name} {seen[name]}", callback

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` gave.

        Raises:
            CheckpointError: the state belongs to another model.
        """
        try:
            self.task.model.load_state_dict(state["model"])
            for name, optimizer in self.optimizers.items():
                load_optimizer(optimizer, state["optimizers"][name])
            if self.average is not None:
                self.average.load_state_dict(state["average"] or state["model"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise CheckpointError(f"the checkpoint belongs to another model: {error}") from error
        if self.updater.scaler is not None and state["scaler"]:
            self.updater.scaler.load_state_dict(state["scaler"])
        self.schedule.load_state_dict(state["schedule"])
        self.task.load_state_dict(state["task"])
        for name, callback in self._named_callbacks():
            if name in state["callbacks"]:
                callback.load_state_dict(state["callbacks"][name])
        self.curve.load_state_dict(state["curve"])
        self.last_metrics = dict(state["metrics"])
        for name, value in state["position"].items():
            setattr(self, name, value)
        set_random_state(state["random"])
