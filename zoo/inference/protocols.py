"""What a network may offer besides its forward pass, as those who use a trained one ask for it.

Whether one does is asked by ``isinstance``, which looks for the names. What every encoder-decoder
has is in :mod:`zoo.inference.decoding`.
"""

from typing import Any, Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class BoundedContext(Protocol):
    """Reads at most so many tokens at once."""

    sequence_length: int


@runtime_checkable
class HasCache(Protocol):
    """Reads each token of a text once: ``model(tokens, cache)``."""

    def new_cache(self) -> Any:
        """The cache of a text of which nothing has been read."""


@runtime_checkable
class HasAttentionMaps(Protocol):
    """Shows where it looks."""

    def attention_maps(self, *inputs: Any) -> dict[str, Tensor]:
        """Weights ``(batch, heads, queries, keys)`` by the name of a layer, given its inputs."""
