"""What a run has learned from its data and cannot do without: is it still what it was?"""

import hashlib
from pathlib import Path

from zoo.config.errors import ConfigError
from zoo.training.run_folder import RunFolder

LEARNED = "learned"
"""The entry of `data.json` that has the digests, by file."""


def digest(text: str) -> str:
    """The digest of a file's text."""
    return hashlib.sha256(text.encode()).hexdigest()


def check_learned(folder: Path) -> None:
    """Refuses a vocabulary, or a scale, that is another than that which the run was trained with.

    Raises:
        ConfigError: a file has been altered; runs of versions that kept no digests are not checked.
    """
    known = RunFolder(folder).read("data.json").get(LEARNED)
    for name, expected in known.items() if isinstance(known, dict) else ():
        path = folder / Path(name).name
        if path.is_file() and digest(path.read_text(encoding="utf-8")) != expected:
            raise ConfigError(
                f"{path} is not as this run wrote it, and its model would be given other inputs: "
                "restore it"
            )
