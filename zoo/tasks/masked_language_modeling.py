"""Masked language modeling: what stands behind the masks of a text, learned by cross-entropy."""

from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.inference.protocols import HasAttentionMaps
from zoo.layers.attention import padding_mask
from zoo.metrics.perplexity import Perplexity
from zoo.metrics.sums import IGNORED, Accuracy
from zoo.tasks.prediction import Classes
from zoo.tasks.task import Shown, Task, Text, inputs_of, mean_over
from zoo.tasks.vocabulary import Vocabulary, shown_attention, special_tokens, token_vectors

MOST_SHOWN = 32
"""Tokens in an image of attention; more are too small to be read."""


class Sample(NamedTuple):
    """The first sequence of an evaluation, each ``(time,)``, and how many tokens it has."""

    tokens: Tensor
    seen: Tensor
    targets: Tensor
    guesses: Tensor
    length: int


class MaskedLanguageModeling(Task):
    r"""Cross-entropy of tokens that the model cannot see, in nats a token.

    .. math:: L = -\frac{1}{|M|} \sum_{t \in M} \log p(x_t \mid \tilde x_1, \dots, \tilde x_T)

    Of the tokens of each sequence, special ones aside, a share M is chosen at random (15 %, at
    least one). Of these 80 % are hidden behind the mask token, 10 % become another token drawn at
    random, and 10 % stay as they are, since later texts will have no masks and every token may
    matter (Devlin et al. 2018, https://arxiv.org/abs/1810.04805, section 3.1). Every time a text is
    seen, other tokens are chosen (Liu et al. 2019, https://arxiv.org/abs/1907.11692, section 4.1).

    Of a batch the task reads the inputs and, if it has any, ``lengths``. The metrics are of the
    chosen tokens: ``loss``, ``perplexity`` (its exponential) and ``accuracy``. After an evaluation
    the beginning of the first batch is shown as the model saw it and as it filled it.

    Args:
        model: tokens, and lengths where sequences are padded, to logits of every place.
        vocabulary: of the text, from the data, with a mask token.
        mask_probability: share of the tokens to choose.
        mask_token_share: share of the chosen tokens that the mask token replaces.
        random_token_share: share of them that a random token replaces; the others stay.

    Shape:
        - inputs: ``(batch, time)``
        - lengths: ``(batch,)``
        - logits: ``(batch, time, vocabulary)``

    Raises:
        ValueError: if an argument is outside its range or the vocabulary has no mask token.
    """

    predicts = Classes
    unit = "tokens"
    given = ("vocabulary",)

    def __init__(
        self,
        model: nn.Module,
        *,
        vocabulary: Vocabulary,
        mask_probability: float = 0.15,
        mask_token_share: float = 0.8,
        random_token_share: float = 0.1,
    ) -> None:
        super().__init__(model)
        if not 0 < mask_probability <= 1:
            raise ValueError(f"mask_probability must be in (0, 1], not {mask_probability}")
        if not 0 <= mask_token_share <= 1:
            raise ValueError(f"mask_token_share must be between 0 and 1, not {mask_token_share}")
        if not 0 <= random_token_share <= 1 - mask_token_share + 1e-9:
            raise ValueError(
                f"random_token_share must be between 0 and what the mask_token_share "
                f"{mask_token_share} leaves, not {random_token_share}"
            )
        if vocabulary.mask is None:
            raise ValueError(
                "vocabulary must have a mask token to hide tokens behind, not be without one: set "
                "mask_token of the data to true"
            )
        self.vocabulary = vocabulary
        self.mask = vocabulary.mask
        self.mask_probability = mask_probability
        self.mask_token_share = mask_token_share
        self.random_token_share = random_token_share
        self._is_special = torch.zeros(len(vocabulary), dtype=torch.bool)
        self._is_special[special_tokens(vocabulary)] = True
        self._ordinary = (~self._is_special).nonzero().squeeze(1)  # (ordinary tokens,)
        self.metrics = {"loss": Perplexity(), "accuracy": Accuracy(ignore_index=IGNORED)}
        self._sample: Sample | None = None

    def loss(self, batch: Any) -> tuple[Tensor, Tensor]:
        seen, targets = self.hide(inputs_of(batch), _lengths(batch))
        return self._loss(self._logits(seen, _lengths(batch)), targets)

    def evaluate(self, batch: Any) -> None:
        tokens, lengths = inputs_of(batch), _lengths(batch)
        seen, targets = self.hide(tokens, lengths)
        logits = self._logits(seen, lengths)
        self.metrics["loss"].update(*self._loss(logits, targets))
        self.metrics["accuracy"].update(logits.flatten(0, 1), targets.flatten())
        if self._sample is None:
            length = tokens.size(1) if lengths is None else int(lengths[0])
            # Copies, since a view would hold on to its whole batch.
            self._sample = Sample(
                tokens[0].clone(), seen[0].clone(), targets[0].clone(), logits[0].argmax(-1), length
            )

    def hide(self, tokens: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Chooses tokens and hides them, with random numbers of the global generator.

        Returns:
            What the model gets to see, and what it has to find out: the tokens that were chosen,
            -100 elsewhere. Both ``(batch, time)``.
        """
        may_be_chosen = ~self._is_special[tokens]
        if lengths is not None:
            may_be_chosen &= padding_mask(lengths.to(tokens.device), tokens.size(1))
        count = (may_be_chosen.sum(1, keepdim=True) * self.mask_probability).round().clamp(min=1)
        # The order of random numbers; tokens that may not be chosen come last.
        order = torch.rand(tokens.shape, device=tokens.device).masked_fill(~may_be_chosen, 2)
        is_chosen = (order.argsort(1).argsort(1) < count) & may_be_chosen
        share = torch.rand(tokens.shape, device=tokens.device)
        numbers = torch.randint(len(self._ordinary), tokens.shape, device=tokens.device)
        is_masked = is_chosen & (share < self.mask_token_share)
        is_random = is_chosen & ~is_masked
        is_random &= share < self.mask_token_share + self.random_token_share
        seen = tokens.masked_fill(is_masked, self.mask)
        seen = torch.where(is_random, self._ordinary[numbers], seen)
        return seen, tokens.masked_fill(~is_chosen, IGNORED)

    def predict(self, batch: Any) -> Classes:
        """Probabilities of the tokens at every place: ``(batch, time, vocabulary)``."""
        logits = self._logits(inputs_of(batch), _lengths(batch))
        return Classes(logits.softmax(-1, dtype=torch.float32), self.vocabulary.tokens())

    def reset(self) -> None:
        super().reset()
        self._sample = None

    def to(self, device: torch.device | str) -> Self:
        self._is_special = self._is_special.to(device)
        self._ordinary = self._ordinary.to(device)
        return super().to(device)

    def show(self) -> dict[str, Shown]:
        """A text, where the model looked in it, and the vectors of the vocabulary.

        Returns:
            ``masked``, ``filled``, ``original``: a text in which what was chosen is in brackets;
            ``attention/<layer>``: where each token at its beginning looked; ``tokens``.
        """
        shown = token_vectors(self.model, self.vocabulary)
        if (sample := self._sample) is None:
            return shown
        versions = {"masked": sample.seen, "filled": sample.guesses, "original": sample.tokens}
        shown |= {name: Text(self._marked(tokens, sample)) for name, tokens in versions.items()}
        model: Any = self.model
        if isinstance(model, HasAttentionMaps):
            maps = model.attention_maps(sample.seen.unsqueeze(0), torch.tensor([sample.length]))
            seen = sample.seen[: min(sample.length, MOST_SHOWN)].tolist()
            names = self.vocabulary.tokens()
            looking = [names[number] for number in seen]
            shown |= shown_attention(maps, looking, looking)
        return shown

    def _logits(self, tokens: Tensor, lengths: Tensor | None) -> Tensor:
        logits: Tensor = self.model(tokens) if lengths is None else self.model(tokens, lengths)
        if logits.shape[-1] != len(self.vocabulary):
            raise ValueError(
                f"vocabulary has {len(self.vocabulary)} tokens, so the model must return logits of "
                f"shape (batch, time, {len(self.vocabulary)}), not {tuple(logits.shape)}"
            )
        return logits

    def _loss(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        count = (targets != IGNORED).sum()
        total = F.cross_entropy(
            logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum"
        )
        return mean_over(total, count), count  # a batch of special tokens alone has no target

    def _marked(self, tokens: Tensor, sample: Sample) -> str:
        """A text with the chosen tokens in brackets, ``[ ]`` for the mask token."""
        vocabulary, names = self.vocabulary, self.vocabulary.tokens()
        is_chosen = sample.targets != IGNORED
        shown = torch.where(is_chosen, tokens, sample.tokens).tolist()
        pieces: list[str] = []
        run: list[int] = []
        for token, chosen in zip(shown[: sample.length], is_chosen.tolist(), strict=False):
            if not chosen:
                run.append(token)
                continue
            pieces += [vocabulary.decode(run), f"[{' ' if token == self.mask else names[token]}]"]
            run = []
        pieces.append(vocabulary.decode(run))
        # Tokens that do not spell the text are words.
        between = "" if vocabulary.characters() is not None else " "
        return between.join(piece for piece in pieces if piece)


def _lengths(batch: Any) -> Tensor | None:
    return getattr(batch, "lengths", None)
