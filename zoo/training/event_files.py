"""Event files that every reader of TensorBoard reads in the order in which they were written.

TensorBoard reads the files of a folder in the order of their names. Its own writer names them by
the clock, which goes back at times, and two processes may begin within a second: here each file
has a number above those before it. To be imported only where TensorBoard is wanted.
"""

import re
import time
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.writer import FileWriter, SummaryWriter

from zoo.training.own_files import naming

_NUMBERED = re.compile(r"events\.out\.tfevents\.(\d+)")


class EventFiles(SummaryWriter):
    """Torch's writer, to a file of this name.

    Args:
        folder: where the file is made; the folder too if it is not there.
        purge_step: the first step that the process before may have written and this one writes
            again; None: a new run.
    """

    def __init__(self, folder: Path, purge_step: int | None = None) -> None:
        self._folder = folder
        super().__init__(str(folder), purge_step=purge_step)

    def _get_file_writer(self) -> Any:
        if self.file_writer is None:
            writer = _FileWriter(self._folder)
            if self.purge_step is not None:
                # The reader in Python takes the first start that it sees for that of a new run,
                # and a run that began without TensorBoard, or before this file, has none.
                for _ in range(2):
                    start = SessionLog(status=SessionLog.START)
                    writer.add_event(Event(session_log=start), self.purge_step)
            # Torch declares neither.
            self.file_writer: Any = writer
            self.all_writers: Any = {str(self._folder): writer}
        return self.file_writer


class _FileWriter(FileWriter):
    def __init__(self, folder: Path) -> None:
        self.event_writer = _EventFile(folder)
        self.add_event(Event(file_version="brain.Event:2"))


class _EventFile:
    """One event file. What it has been given is with the system when a method returns."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        names = [_NUMBERED.match(path.name) for path in folder.iterdir()]
        newest = max((int(name[1]) for name in names if name), default=0)
        number = max(int(time.time()), newest + 1)
        self._folder = folder
        self._path = folder / f"events.out.tfevents.{number:010d}"
        self._file = open(self._path, "xb")  # noqa: SIM115
        self._records = RecordWriter(self._file)

    def get_logdir(self) -> str:
        return str(self._folder)

    def add_event(self, event: Event) -> None:
        with naming(self._path):
            self._records.write(event.SerializeToString())
            self._file.flush()

    def flush(self) -> None:
        with naming(self._path):
            self._file.flush()

    def close(self) -> None:
        with naming(self._path):
            self._file.close()


def read_images(folder: Path, name: str) -> dict[int, bytes]:
    """The files of one image, by the steps at which it was written.

    What a killed process had written and a later one took back is not among them.

    Args:
        folder: of event files.
        name: of the image.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    if not folder.is_dir():
        return {}
    found = EventAccumulator(str(folder), size_guidance={"images": 0}).Reload()
    if name not in found.Tags()["images"]:
        return {}
    return {event.step: event.encoded_image_string for event in found.Images(name)}
