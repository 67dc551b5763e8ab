"""What the data sets of text share."""

from typing import Any

from zoo.data.module import DataModule
from zoo.data.text.vocabularies import load_vocabulary
from zoo.data.text.vocabulary import Vocabulary


class TextModule(DataModule):
    """A data set of text: its vocabularies are stored with a run and restored from there."""

    def restore_vocabulary(self, stored: dict[str, Any]) -> Vocabulary:
        return load_vocabulary(stored)
