"""The steps of a sequence as vectors, whether they are tokens or vectors already."""

from torch import Tensor, nn

from zoo.layers.checks import check_at_least_one


class StepEmbedding(nn.Module):
    """An embedding where the steps of a sequence are tokens, and nothing where they are vectors.

    Args:
        vocab_size: number of different tokens; None if the steps are vectors.
        in_features: width of a step; None if the steps are tokens.
        embed_dim: width of a token's embedding; has no effect on vectors.

    Shape:
        - input: tokens ``(batch, time)`` of type int64, or vectors ``(batch, time, in_features)``
        - output: ``(batch, time, out_features)`` with ``embed_dim`` or ``in_features``

    Raises:
        ValueError: if an argument is outside its range, or the input is of the other sort.
    """

    def __init__(
        self, vocab_size: int | None, in_features: int | None, *, embed_dim: int = 64
    ) -> None:
        super().__init__()
        check_at_least_one(embed_dim=embed_dim)
        self.embedding: nn.Embedding | None = None
        if vocab_size is not None and in_features is None:
            check_at_least_one(vocab_size=vocab_size)
            self.out_features = embed_dim
            self.embedding = nn.Embedding(vocab_size, embed_dim)
        elif in_features is not None and vocab_size is None:
            check_at_least_one(in_features=in_features)
            self.out_features = in_features
        else:
            raise ValueError(
                "vocab_size must be given for tokens or in_features for vectors, one of the two, "
                f"not {vocab_size} and {in_features}"
            )

    def forward(self, inputs: Tensor) -> Tensor:
        shape = tuple(inputs.shape)
        if self.embedding is not None:
            if inputs.ndim != 2 or inputs.is_floating_point():
                raise ValueError(
                    f"inputs must be tokens (batch, time) of type int64, not {shape} of "
                    f"{inputs.dtype}: a network with a vocab_size reads no vectors"
                )
            return self.embedding(inputs)  # (batch, time, embed_dim)
        if inputs.ndim != 3 or shape[2] != self.out_features:
            raise ValueError(
                f"inputs must be vectors (batch, time, {self.out_features}), not {shape}"
            )
        return inputs
