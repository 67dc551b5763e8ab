"""Language modeling: the next token of a text, learned by cross-entropy."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.inference.generation import Draw, Sampler, continuation, step, without
from zoo.metrics.perplexity import Perplexity
from zoo.metrics.sums import Mean
from zoo.tasks.prediction import Texts
from zoo.tasks.task import Part, Shown, Task, Text, evaluation_mode, inputs_of
from zoo.tasks.vocabulary import Vocabulary, as_text, special_tokens


class LanguageModeling(Task):
    r"""Cross-entropy of the next token, in nats a token.

    .. math:: L = -\frac{1}{T} \sum_t \log p(x_{t+1} \mid x_1, \dots, x_t)

    A batch is ``(inputs, targets, is_start)``; the targets are the inputs one token later. Where
    ``is_start`` is false, it continues the texts of the batch before: a model that returns a state
    is given it back, detached from the gradient (truncated back-propagation through time); where it
    is true, the texts begin anew. Evaluation carries a state of its own. The metrics are ``loss``,
    ``perplexity`` (its exponential) and, where the tokens spell the text, ``bits_per_character``.

    Args:
        model: tokens to logits, ``model(tokens)``, or to logits and a state, which ``model(tokens,
            state)`` takes again: tensors, in tuples if several.
        vocabulary: of the text, from the data. Without it no text is written.
        sample_length: tokens of the sample that follows an evaluation, 0 for none.
        prompt: beginning of the sample; if None, it begins after a line break, if the vocabulary
            has one, else after its first token.
        temperature: of the sample, see :class:`~zoo.inference.generation.Sampler`.
        top_k: of the sample.
        top_p: of the sample.

    Shape:
        - inputs, targets: ``(batch, time)``
        - logits: ``(batch, time, vocabulary)``, or more of them: a vocabulary may be padded to a
          size that suits the device, and the tokens that are none are never drawn

    Raises:
        ValueError: if an argument is outside its range, or a prompt not of the vocabulary.
    """

    predicts = Texts
    unit = "tokens"
    given = ("vocabulary",)

    def __init__(
        self,
        model: nn.Module,
        *,
        vocabulary: Vocabulary | None = None,
        sample_length: int = 300,
        prompt: str | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> None:
        super().__init__(model)
        if sample_length < 0:
            raise ValueError(f"sample_length must be at least 0, not {sample_length}")
        Sampler(temperature, top_k=top_k, top_p=top_p)  # so that wrong values are refused now
        self.vocabulary = vocabulary
        self.sample_length = sample_length
        self.prompt = prompt
        self.sampling = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
        self.metrics = {"loss": Perplexity()}
        self._characters: Tensor | None = None
        if prompt is not None:
            _encode(vocabulary, prompt)
        if vocabulary is not None and (characters := vocabulary.characters()) is not None:
            self._characters = torch.tensor(characters)
            self.metrics["bits_per_character"] = Mean(higher_is_better=False)
        self._state: Any = None
        self._evaluation_state: Any = None

    def loss(self, batch: tuple[Tensor, Tensor, bool]) -> tuple[Tensor, int]:
        inputs, targets, is_start = batch
        loss, state = self._loss(inputs, targets, None if is_start else self._state)
        self._state = _map(Tensor.detach, state)
        return loss, targets.numel()

    def evaluate(self, batch: tuple[Tensor, Tensor, bool]) -> None:
        inputs, targets, is_start = batch
        loss, state = self._loss(inputs, targets, None if is_start else self._evaluation_state)
        self._evaluation_state = _map(Tensor.detach, state)
        self.metrics["loss"].update(loss, targets.numel())
        if self._characters is not None:
            count = self._characters[targets].sum()
            bits = loss * targets.numel() / math.log(2)
            # No character may begin in a batch, and a mean over nothing has no value.
            self.metrics["bits_per_character"].add(total=bits, count=count)  # type: ignore[attr-defined]

    def reset(self) -> None:
        super().reset()
        self._evaluation_state = None

    def to(self, device: torch.device | str) -> Self:
        if self._characters is not None:
            self._characters = self._characters.to(device)
        return super().to(device)

    def predict(self, batch: Any) -> Texts:
        """What follows each row of tokens ``(batch, time)``: ``sample_length`` more of them."""
        drawn = [*self.generate_tokens(inputs_of(batch), self.sample_length, self._writer())]
        rows = torch.cat(drawn, 1).tolist() if drawn else [[]] * len(inputs_of(batch))
        return Texts([as_text(row, self.vocabulary) for row in rows])

    def state_dict(self) -> dict[str, Any]:
        return {"state": self._state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._state = state["state"]

    def state_of_part(self, states: Sequence[dict[str, Any]], part: Part) -> dict[str, Any]:
        """The carried states of this part's rows of the batch."""
        carried = [state["state"] for state in states if state["state"] is not None]
        if not carried:
            return {"state": None}
        rank, world = part

        def own(*parts: Tensor) -> Tensor:  # (layers, batch, hidden_size) each
            return torch.cat(parts, dim=1).tensor_split(world, dim=1)[rank].contiguous()

        return {"state": _map(own, *carried)}

    def next_steps(self, data: Any) -> list[str]:
        return [] if self.vocabulary is None else ["scripts/generate.py run={run} length=500"]

    def show(self) -> dict[str, Shown]:
        """``sample``, the same one from the same weights."""
        if self.vocabulary is None or self.sample_length == 0:
            return {}
        return {"sample": Text("".join(self.generate(self.prompt, self.sample_length)))}

    def generate(
        self,
        prompt: str | None = None,
        length: int | None = None,
        sampler: Draw | None = None,
    ) -> Iterator[str]:
        """Continues a text. Special tokens, which mean nothing to a reader, are never drawn.

        Args:
            prompt: the beginning, part of the result; if None, see the class.
            length: tokens to add; ``sample_length`` if None.
            sampler: draws them; if None, one of the task's own temperature and limits.

        Yields:
            The prompt, then the text as it is drawn.

        Raises:
            ValueError: the vocabulary cannot write the prompt, or there is no vocabulary.
        """
        vocabulary = _known(self.vocabulary)
        given = _encode(vocabulary, prompt) if prompt else []
        if prompt:
            yield prompt
        start = torch.tensor([given or [_first(vocabulary)]])
        length = self.sample_length if length is None else length
        draw = self._writer(sampler)
        drawn = (int(token) for token in self.generate_tokens(start, length, draw))
        # Words are written as they stand after those of the prompt: with a space, or without.
        known = sum(1 for _ in vocabulary.decode_stream(given))
        yield from islice(vocabulary.decode_stream(chain(given, drawn)), known, None)

    def generate_tokens(
        self, tokens: Tensor, length: int, sampler: Draw | None = None
    ) -> Iterator[Tensor]:
        """Draws the ``length`` tokens that follow: ``(batch, time)`` to ``(batch, 1)`` each."""
        sampler = sampler or self._sampler()
        tokens = tokens.to(next(self.model.parameters()).device)
        with evaluation_mode(self.model):
            for _, token in zip(range(length), continuation(self.model, tokens, sampler)):  # noqa: B905 - one is endless
                yield token

    def _writer(self, sampler: Draw | None = None) -> Draw:
        """Draws with a sampler, by default the task's own, but never a special token."""
        sampler = sampler or self._sampler()
        if self.vocabulary is None:
            return sampler
        draw, size = without(special_tokens(self.vocabulary), sampler), len(self.vocabulary)
        return lambda logits: draw(logits[..., :size])

    def _sampler(self) -> Sampler:
        return Sampler(**self.sampling)  # type: ignore[arg-type]

    def _loss(self, inputs: Tensor, targets: Tensor, state: Any) -> tuple[Tensor, Any]:
        logits, state = self._logits(inputs, state)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten()), state

    def _logits(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        # A state from a checkpoint is wherever that was read to.
        logits, state = step(self.model, tokens, _map(lambda part: part.to(tokens.device), state))
        if self.vocabulary is not None and logits.shape[-1] < len(self.vocabulary):
            raise ValueError(
                f"vocabulary has {len(self.vocabulary)} tokens, so the model must return logits of "
                f"shape (batch, time, {len(self.vocabulary)}) or more, not {tuple(logits.shape)}"
            )
        return logits, state


def _known(vocabulary: Vocabulary | None) -> Vocabulary:
    if vocabulary is None:
        raise ValueError("vocabulary must be given to read or write text, not None")
    return vocabulary


def _encode(vocabulary: Vocabulary | None, prompt: str) -> list[int]:
    try:
        tokens = _known(vocabulary).encode(prompt)
    except ValueError as error:
        raise ValueError(f"prompt cannot be written in the vocabulary: {error}") from error
    if not tokens:
        raise ValueError(f"prompt must hold at least one token, not be {prompt!r}")
    return tokens


def _first(vocabulary: Vocabulary) -> int:
    """The token that a text without a prompt follows."""
    try:
        return (vocabulary.encode("\n") or [0])[0]
    except ValueError:  # There is no line break.
        return 0


def _map(function: Callable[..., Tensor], state: Any, *others: Any) -> Any:
    """Applies a function to the tensors of a state, or of several alike."""
    if isinstance(state, Tensor):
        return function(state, *others)
    if state is None:
        return None
    return tuple(_map(function, *parts) for parts in zip(state, *others, strict=True))
