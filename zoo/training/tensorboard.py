"""What TensorBoard shows of a run.

The run folder is the training curve's run, `val/` and `test/` below it are those of the
evaluations, so that each metric is one chart with a line for every split. Hyperparameters are in
the HParams tab, of the same run. No run describes the columns of that tab: TensorBoard then takes
those of all runs, and first the ones in which they differ. A resumed run continues in the same
folder: what the killed process had written beyond the checkpoint is purged.
"""

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from zoo.tasks.task import Image, Shown, Table, Text, Vectors, evaluation_mode
from zoo.training.callback import Callback, Run
from zoo.training.callbacks import TIMINGS
from zoo.training.own_files import replacing
from zoo.training.settings import LoggerSettings

_POSITION = ("step", "epoch", "split")
_NOT_TUNED = ("paths", "logger", "callbacks", "name")


def chart(name: str) -> str:
    """The chart of a value; charts are grouped by what stands before the slash."""
    last = name.rpartition("_")[2]
    is_rate = name.partition("/")[0].rpartition("_")[2] == "lr"  # of a network, or lr/<group>
    if name in TIMINGS:
        return f"system/{name}"
    if name.endswith(("grad_norm", "zero_weights")) or is_rate:
        return f"optimizer/{name}"
    if "/" in name or name == "loss":
        return name
    return f"loss/{name}" if last == "loss" else f"metrics/{name}"


class TensorBoard(Callback):
    """Writes event files into the run folder.

    Args:
        settings: what to write.
        folder: the run folder.
        config: plain configuration, for the HParams tab.
        changes: words with which a resumed run goes on.
    """

    def __init__(
        self,
        settings: LoggerSettings,
        folder: Path,
        config: dict[str, Any] | None = None,
        changes: Sequence[str] = (),
    ) -> None:
        self.settings = settings
        self.folder = folder
        self.config = config
        self.changes = changes
        self._writers: dict[str, Any] = {}
        self._resumed = False
        self._purge_steps: dict[str, int] = {}
        self._evaluations = 0
        self._last_row: dict[str, Any] = {}
        self._described = False

    def _writer(self, split: str) -> Any:
        from zoo.training.event_files import EventFiles

        if split not in self._writers:
            folder = self.folder if split == "train" else self.folder / split
            self._writers[split] = EventFiles(folder, self._purge_steps.get(split))
        return self._writers[split]

    def on_fit_start(self, trainer: Run) -> None:
        if self._resumed:
            for left in (self.folder / "images").glob("*.tmp"):  # By a process that was killed.
                left.unlink(missing_ok=True)
            # What the killed process wrote and this one is going to write again.
            step = trainer.step
            first = step + (trainer.position.evaluated_at == step or step == 0)
            self._purge_steps = {"train": first, "val": first, "test": step}
            for split in self._purge_steps:
                if split == "train" or (self.folder / split).is_dir():
                    self._writer(split)
            if self._last_row and self._last_row["step"] == first:
                self.on_log(trainer, self._last_row)  # Purged, and not written again.
            if self.changes:
                _write(self._writer("train"), "resumed with", Text("\n".join(self.changes)), step)
            return
        writer = self._writer("train")
        batch = next(iter(trainer.data.batches("train", 0)))
        for name, shown in trainer.task.show_inputs(batch).items():
            _write(writer, name, shown, 0)
        if self.settings.graph and not trainer.strategy.is_sharded:
            self._write_graph(trainer, writer, batch)

    def _write_graph(self, trainer: Run, writer: Any, batch: Any) -> None:
        """Traces the model; one that torch cannot trace goes without, and says so in the log."""
        model = trainer.task.model
        try:
            with (
                evaluation_mode(model),
                warnings.catch_warnings(),
                contextlib.redirect_stdout(None),
            ):
                warnings.simplefilter("ignore")
                inputs = trainer.task.example_inputs(batch)
                writer.add_graph(model, inputs, use_strict_trace=False)
        except Exception as error:  # Whatever tracing raises, the run is worth more.
            if trainer.folder is not None:
                reason = str(error).strip().splitlines()[:1]
                trainer.folder.log(f"no model graph in TensorBoard: {''.join(reason)}")

    def on_log(self, trainer: Run, row: dict[str, Any]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [
            Summary.Value(tag=chart(name), simple_value=value)
            for name, value in row.items()
            if name not in _POSITION
        ]
        if row["split"] == "train":
            self._last_row = row
        # One event for the whole line: a tenth of the time of one event for each value.
        writer = self._writer(row["split"]).file_writer
        writer.add_summary(Summary(value=values), row["step"])

    def on_evaluation_end(self, trainer: Run, split: str, metrics: dict[str, float]) -> None:
        if not self._described:
            self._describe()
        self._evaluations += split == "val"
        every = self.settings.images_every
        last = split == "test" or trainer.step >= trainer.total_steps
        if not last and not (every and (self._evaluations - 1) % every == 0):
            return
        writer = self._writer(split)
        for name, shown in trainer.show().items():
            if isinstance(shown, Image):
                shown = Image(shown.pixels)  # Drawn once for both.
                self._save(shown, f"{split}_{name.replace('/', '_')}.png")
            if last or not isinstance(shown, Vectors):
                _write(writer, name, shown, trainer.step)

    def _save(self, shown: Image, name: str) -> None:
        """Puts an image in the place of the one before it."""
        folder = self.folder / "images"
        folder.mkdir(exist_ok=True)
        with replacing(folder / name) as file:
            file.write(shown.png())

    def _describe(self) -> None:
        """Writes the hyperparameters for the HParams tab."""
        self._described = True
        from google.protobuf.struct_pb2 import Value
        from tensorboard.plugins.hparams import plugin_data_pb2

        start = plugin_data_pb2.SessionStartInfo()
        for name, value in _flat(self.config or {}):
            if isinstance(value, bool):
                wrapped = Value(bool_value=value)
            elif isinstance(value, str):
                wrapped = Value(string_value=value)
            else:
                wrapped = Value(number_value=value)
            start.hparams[name].CopyFrom(wrapped)
        self._write_hparams("session_start_info", session_start_info=start)

    def _write_selected(self, results: dict[str, Any], step: int) -> None:
        """Writes what the selected weights reach: the last points of `val` are those of the last.

        The chart `selected/val_accuracy` is a column of the HParams tab.
        """
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [
            Summary.Value(tag=f"selected/{split}_{name}", simple_value=value)
            for split in ("val", "test")
            for name, value in results.get(split, {}).items()
        ]
        self._writer("train").file_writer.add_summary(Summary(value=values), step)

    def _write_hparams(self, tag: str, **content: Any) -> None:
        """One summary of the HParams plugin, into the run's own event file."""
        from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
        from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

        data = HParamsPluginData(version=0, **content).SerializeToString()
        plugin = SummaryMetadata.PluginData(plugin_name="hparams", content=data)
        value = Summary.Value(tag=f"_hparams_/{tag}", metadata=SummaryMetadata(plugin_data=plugin))
        self._writer("train").file_writer.add_summary(Summary(value=[value]))

    def on_fit_end(self, trainer: Run, results: dict[str, Any] | None) -> None:
        from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2

        # A full disk has already been reported by what filled it.
        with contextlib.suppress(OSError):
            # TensorBoard keeps the first status for good, and a run that failed may be resumed.
            if results and self._evaluations and not self._described:
                self._describe()  # Resumed after the last evaluation.
            if self._described and results:
                # Behind the last step, so that a run that goes on from there purges it.
                self._write_selected(results, trainer.step + 1)
                end = plugin_data_pb2.SessionEndInfo(status=api_pb2.STATUS_SUCCESS)
                self._write_hparams("session_end_info", session_end_info=end)
            for writer in self._writers.values():
                writer.close()
        self._writers.clear()

    def state_dict(self) -> dict[str, Any]:
        return {"evaluations": self._evaluations, "last_row": self._last_row}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._resumed = True
        self._evaluations, self._last_row = state["evaluations"], state["last_row"]


def _write(writer: Any, name: str, shown: Shown, step: int) -> None:
    match shown:
        case Image():
            writer.add_image(name, shown.pixels, step)
        case Text():
            # Four spaces make Markdown show the text as it is.
            block = "\n".join("    " + line for line in shown.text.splitlines())
            writer.add_text(name, block, step)
        case Table():
            writer.add_text(name, shown.markdown(), step)
        case Vectors():
            # A resumed run may write the same folder again, about which torch prints a warning.
            with contextlib.redirect_stdout(None):
                writer.add_embedding(shown.vectors, shown.labels, tag=name, global_step=step)


def _flat(config: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and plain values of what may differ between runs."""
    for name, value in config.items():
        if not prefix and name in _NOT_TUNED:
            continue
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        elif value is not None:
            shown = value if isinstance(value, bool | int | float) else str(value)
            if not isinstance(shown, str) or len(shown) <= 100:
                # Where the data are on this machine is not a hyperparameter.
                if name in ("root", "path"):
                    continue
                yield f"{prefix}{name}".removesuffix("._target_"), shown
