"""Language modeling: the next token of a text, learned by cross-entropy."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.tasks.metrics import Mean
from zoo.tasks.task import Task, evaluation_mode, inputs_of


class LanguageModeling(Task):
    r"""Cross-entropy of the next token, in nats a token, with a state carried between batches.

    .. math:: L = -\frac{1}{T} \sum_t \log p(x_{t+1} \mid x_1, \dots, x_t)

    A batch ``(inputs, targets, is_start)`` continues the texts of the one before, so the model's
    state is carried on, cut off from the gradient (truncated back-propagation through time), and
    dropped where ``is_start`` says that the texts begin anew. The targets are the inputs one token
    later. Evaluation carries a state of its own. The metrics are ``loss``,
    ``perplexity`` (its exponential) and, for a vocabulary of characters, ``bits_per_character``.

    Args:
        model: tokens and state to logits and state, ``logits, state = model(tokens, state)``, where
            a state of None is the start of a text and any other is tensors, in tuples if several.
        vocabulary: the tokens by number: single characters, or words that a blank separates.
            Without it no text is written.
        sample_length: tokens of the sample that follows an evaluation, 0 for none.
        prompt: beginning of the sample; if None, it begins after a line break, where the vocabulary
            has one, else after the first token.
        temperature: of the sample; 0 always takes the most probable token.

    Shape:
        - inputs, targets: ``(batch, time)``
        - logits: ``(batch, time, vocabulary)``
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        vocabulary: tuple[str, ...] | str | None = None,
        sample_length: int = 300,
        prompt: str | None = None,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(model)
        if sample_length < 0:
            raise ValueError(f"sample_length must be at least 0, not {sample_length}")
        _check_temperature(temperature)
        self.vocabulary = None if vocabulary is None else tuple(vocabulary)
        self.sample_length = sample_length
        self.prompt = prompt
        self.temperature = temperature
        self.has_characters = self.vocabulary is not None and all(
            len(token) == 1 for token in self.vocabulary
        )
        if prompt is not None:
            self.encode(prompt)  # so that a bad prompt is refused before the training
        self.metrics = {"loss": Mean()}
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

    def reset(self) -> None:
        super().reset()
        self._evaluation_state = None

    def compute(self) -> dict[str, float]:
        values = super().compute()
        # math.exp raises where a diverged model's perplexity is infinite.
        values["perplexity"] = torch.tensor(values["loss"], dtype=torch.float64).exp().item()
        if self.has_characters:
            values["bits_per_character"] = values["loss"] / math.log(2)
        return values

    def predict(self, batch: Any) -> Tensor:
        """Probabilities of each next token, from the start of a text: (batch, time, vocabulary)."""
        logits, _ = self._logits(inputs_of(batch), None)
        return logits.softmax(-1, dtype=torch.float32)

    def state_dict(self) -> dict[str, Any]:
        return {"state": self._state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._state = state["state"]

    def texts(self) -> dict[str, str]:
        """``sample``, the same one from the same weights."""
        if self.vocabulary is None or self.sample_length == 0:
            return {}
        return {"sample": self.generate(self.prompt)}

    def generate(
        self,
        prompt: str | None = None,
        length: int | None = None,
        temperature: float | None = None,
        seed: int = 0,
    ) -> str:
        """Continues a text.

        Args:
            prompt: the beginning, part of the result; if None, see the class.
            length: tokens to add; ``sample_length`` if None.
            temperature: divides the logits; the task's if None.
            seed: of the sample's own random numbers.
        """
        vocabulary = self._known_vocabulary()
        tokens = self.encode(prompt or "")
        start = vocabulary.index("\n") if "\n" in vocabulary else 0
        added = self.generate_tokens(
            torch.tensor([tokens or [start]]),
            self.sample_length if length is None else length,
            temperature=self.temperature if temperature is None else temperature,
            seed=seed,
        )
        return self.decode([*tokens, *added[0].tolist()])

    def generate_tokens(
        self, tokens: Tensor, length: int, *, temperature: float = 1.0, seed: int = 0
    ) -> Tensor:
        """Draws the ``length`` tokens that follow: ``(batch, time)`` to ``(batch, length)``."""
        _check_temperature(temperature)
        # Random numbers of our own: a sample must not change the training that goes on after it.
        generator = torch.Generator().manual_seed(seed)
        tokens, state, added = tokens.to(next(self.model.parameters()).device), None, []
        with evaluation_mode(self.model):
            for _ in range(length):
                logits, state = self._logits(tokens, state)
                scores = logits[:, -1].float()  # (batch, vocabulary)
                if temperature > 0:
                    # The largest of scores plus Gumbel noise is a draw from their softmax.
                    noise = torch.empty(scores.shape).exponential_(generator=generator)
                    scores = scores / temperature - noise.log().to(scores.device)
                tokens = scores.argmax(-1, keepdim=True)  # (batch, 1)
                added.append(tokens)
        return torch.cat(added, 1) if added else tokens[:, :0]  # (batch, length)

    def encode(self, text: str) -> list[int]:
        """The numbers of a text's tokens."""
        numbers = {token: number for number, token in enumerate(self._known_vocabulary())}
        tokens = list(text) if self.has_characters else text.split()
        if unknown := sorted({token for token in tokens if token not in numbers}):
            raise ValueError(
                f"prompt must consist of tokens of the vocabulary, which lacks {unknown}"
            )
        return [numbers[token] for token in tokens]

    def decode(self, tokens: list[int]) -> str:
        """The text of token numbers."""
        vocabulary = self._known_vocabulary()
        return ("" if self.has_characters else " ").join(vocabulary[token] for token in tokens)

    def _known_vocabulary(self) -> tuple[str, ...]:
        if self.vocabulary is None:
            raise ValueError("vocabulary must be given to read or write text, not None")
        return self.vocabulary

    def _loss(self, inputs: Tensor, targets: Tensor, state: Any) -> tuple[Tensor, Any]:
        logits, state = self._logits(inputs, state)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten()), state

    def _logits(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        # A state from a checkpoint is wherever that was read to.
        logits, state = self.model(tokens, _map(lambda part: part.to(tokens.device), state))
        if self.vocabulary is not None and logits.shape[-1] != len(self.vocabulary):
            raise ValueError(
                f"vocabulary has {len(self.vocabulary)} tokens, so the model must return logits of "
                f"shape (batch, time, {len(self.vocabulary)}), not {tuple(logits.shape)}"
            )
        return logits, state


def _check_temperature(temperature: float) -> None:
    if not 0 <= temperature < math.inf:
        raise ValueError(f"temperature must be finite and at least 0, not {temperature}")


def _map(function: Callable[[Tensor], Tensor], state: Any) -> Any:
    """Applies a function to the tensors of a state."""
    if isinstance(state, Tensor):
        return function(state)
    return None if state is None else tuple(_map(function, part) for part in state)
