"""What a task asks of a vocabulary, and what it shows of one."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Protocol

from torch import Tensor, nn

from zoo.figures.alignment import alignment_image
from zoo.tasks.task import Image, Shown, Vectors


class Vocabulary(Protocol):
    """Text to tokens and back; made by the data and handed to the task by the run.

    Attributes:
        pad, unknown, begin, end, mask: numbers of the special tokens, None if it has none.
    """

    pad: int | None
    unknown: int | None
    begin: int | None
    end: int | None
    mask: int | None

    def __len__(self) -> int: ...

    def encode(self, text: str) -> list[int]:
        """Tokens of a text, none of them special."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens, special ones omitted."""
        ...

    def decode_stream(self, tokens: Iterable[int]) -> Iterator[str]:
        """The text piece by piece, in whole characters."""
        ...

    def tokens(self) -> list[str]:
        """Every token as it should be displayed."""
        ...

    def characters(self) -> list[int] | None:
        """How many characters begin in each token; None if tokens do not spell the text."""
        ...


def special_tokens(vocabulary: Vocabulary) -> list[int]:
    """The numbers of the special tokens that a vocabulary has."""
    v = vocabulary
    return [n for n in (v.pad, v.unknown, v.begin, v.end, v.mask) if n is not None]


def token_vectors(model: nn.Module, vocabulary: Vocabulary | None) -> dict[str, Shown]:
    """``tokens``: the model's first embedding that has a vector for each token, if any."""
    names = [] if vocabulary is None else vocabulary.tokens()
    for module in model.modules():
        if isinstance(module, nn.Embedding) and module.num_embeddings == len(names):
            return {"tokens": Vectors(module.weight.detach(), names)}
    return {}


def as_text(tokens: Sequence[int], vocabulary: Vocabulary | None) -> str:
    """The text of tokens; without a vocabulary, their numbers."""
    return " ".join(map(str, tokens)) if vocabulary is None else vocabulary.decode(tokens)


def shown_attention(
    maps: Mapping[str, Tensor], source: Sequence[str], target: Sequence[str]
) -> dict[str, Shown]:
    """``attention/<layer>``: which tokens of the source each one of the target looked at.

    Args:
        maps: weights of each layer for a batch of one, ``(1, heads, >= target, >= source)``.
        source: the tokens of the source that are shown, from the first.
        target: those of the target, likewise.
    """
    seen = (0, slice(None), slice(len(target)), slice(len(source)))
    return {
        f"attention/{layer}": Image(partial(alignment_image, weights[seen], source, target))
        for layer, weights in maps.items()
    }
