"""Translation: one sequence written from another, learned by cross-entropy, judged by BLEU."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.inference.decoding import BEGIN, END, PAD, beam_search, greedy_search
from zoo.inference.protocols import HasAttentionMaps
from zoo.layers.attention import KeyValueCache
from zoo.metrics.bleu import Bleu
from zoo.metrics.perplexity import Perplexity
from zoo.metrics.sums import Accuracy, Mean
from zoo.tasks.prediction import Texts
from zoo.tasks.task import Shown, Task, Text, Vectors, evaluation_mode, mean_over
from zoo.tasks.vocabulary import Vocabulary, as_text, shown_attention

SAMPLES = 5


class Pairs(Protocol):
    """A batch: padded tokens, their lengths on the CPU, and the targets as text, if there is any.

    The source ends with ``</s>``; the target begins with ``<s>`` too. Padding is 0, on the right.
    """

    @property
    def source(self) -> Tensor: ...

    @property
    def source_lengths(self) -> Tensor: ...

    @property
    def target(self) -> Tensor: ...

    @property
    def references(self) -> list[str]: ...


class Sample(NamedTuple):
    """One sequence of an evaluation: numbers of tokens without padding."""

    source: list[int]
    target: list[int]
    found: list[int]
    reference: str | None


class Translation(Task):
    r"""Cross-entropy of each token of the target, given the source and the tokens before it.

    .. math::
        L = -\frac{1}{T} \sum_t \left( (1 - \epsilon) \log p(y_t \mid y_{<t}, x)
        + \frac{\epsilon}{V} \sum_v \log p(v \mid y_{<t}, x) \right)

    with label smoothing (Szegedy et al. 2016, https://arxiv.org/abs/1512.00567). With
    ``teacher_forcing`` below 1, each token that the model is shown in training is the true one with
    that probability and else its own most probable guess, drawn for every token by itself
    (scheduled sampling, Bengio et al. 2015, https://arxiv.org/abs/1506.03099, at a constant rate).
    The model is then run step by step, which a Transformer's decoding with its cache cannot learn
    from.

    Metrics: ``loss``, the cross-entropy without smoothing, in nats a token; ``perplexity``, its
    exponential; ``accuracy`` of the next token, given the true ones; and of what the model writes
    by itself, ``sequence_accuracy``, the share of sequences that are exactly the target, and with a
    target vocabulary ``bleu`` and ``bleu_tokenized`` (see :class:`~zoo.metrics.bleu.Bleu`).

    Args:
        model: an encoder-decoder: ``model(source, target, source_lengths)`` gives logits, and
            ``encode``, ``decode`` and ``reorder`` are as :mod:`zoo.inference.decoding` has them.
        source_vocabulary: to read and show sources.
        target_vocabulary: to write text.
        label_smoothing: :math:`\epsilon`.
        teacher_forcing: probability of a true token; see above.
        beam_size: hypotheses that the search follows; 1: greedy, 0: evaluations write nothing.
        length_penalty: exponent of the length penalty of beam search.
        length_factor: a translation has at most this many times the source's tokens,
        length_constant: plus this many.

    Shape:
        - source: ``(batch, S)``
        - target: ``(batch, T)``
        - logits: ``(batch, T - 1, vocabulary)``
    """

    predicts = Texts
    unit = "tokens"
    given = ("source_vocabulary", "target_vocabulary")
    changeable = ("beam_size", "length_penalty")

    def __init__(
        self,
        model: nn.Module,
        *,
        source_vocabulary: Vocabulary | None = None,
        target_vocabulary: Vocabulary | None = None,
        label_smoothing: float = 0.0,
        teacher_forcing: float = 1.0,
        beam_size: int = 1,
        length_penalty: float = 0.6,
        length_factor: float = 1.5,
        length_constant: int = 10,
    ) -> None:
        super().__init__(model)
        for name, share in (
            ("label_smoothing", label_smoothing),
            ("teacher_forcing", teacher_forcing),
        ):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} must be between 0 and 1, not {share}")
        check_beam(beam_size, length_penalty, least=0)
        if length_factor < 0:
            raise ValueError(f"length_factor must not be negative, not {length_factor}")
        if length_constant < 1:
            raise ValueError(f"length_constant must be at least 1, not {length_constant}")
        self.source_vocabulary = source_vocabulary
        self.target_vocabulary = target_vocabulary
        self.label_smoothing = label_smoothing
        self.teacher_forcing = teacher_forcing
        self.beam_size = beam_size
        self.length_penalty = length_penalty
        self.length_factor = length_factor
        self.length_constant = length_constant
        self.metrics = {"loss": Perplexity(), "accuracy": Accuracy(ignore_index=PAD)}
        if beam_size > 0:
            self.metrics["sequence_accuracy"] = Mean(higher_is_better=True)
            if target_vocabulary is not None:
                self.metrics["bleu"] = Bleu()
        self._samples: list[Sample] = []

    def loss(self, batch: Pairs) -> tuple[Tensor, Tensor]:
        if self.teacher_forcing < 1:
            logits = self._sampled(batch)
        else:
            logits = self.model(batch.source, batch.target[:, :-1], batch.source_lengths)
        return self._cross_entropy(logits, batch.target[:, 1:], self.label_smoothing)

    def _sampled(self, batch: Pairs) -> Tensor:
        """Logits ``(batch, T - 1, vocabulary)`` where the model sees some of its own guesses."""
        model: Any = self.model
        state = model.encode(batch.source, batch.source_lengths)
        if _has_cache(state):
            raise ValueError(
                "teacher_forcing must be 1 with a model that caches keys and values while it "
                f"decodes, not {self.teacher_forcing}"
            )
        target = batch.target
        is_true = torch.rand(target.shape, device=target.device) < self.teacher_forcing
        tokens, written = target[:, :1], []
        for step in range(1, target.size(1)):
            logits, state = model.decode(tokens, state)  # (batch, 1, vocabulary)
            written.append(logits)
            guess = logits.detach().argmax(-1)  # (batch, 1)
            tokens = torch.where(is_true[:, step : step + 1], target[:, step : step + 1], guess)
        return torch.cat(written, 1)

    def _cross_entropy(
        self, logits: Tensor, targets: Tensor, smoothing: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """The mean over the real tokens, and how many they are."""
        vocabulary = self.target_vocabulary
        if vocabulary is not None and logits.size(-1) != len(vocabulary):
            raise ValueError(
                f"target_vocabulary has {len(vocabulary)} tokens, so the model must return logits "
                f"of shape (batch, time, {len(vocabulary)}), not {tuple(logits.shape)}"
            )
        count = (targets != PAD).sum()
        total = F.cross_entropy(
            logits.flatten(0, 1),
            targets.flatten(),
            ignore_index=PAD,
            reduction="sum",
            label_smoothing=smoothing,
        )
        return mean_over(total, count), count

    def evaluate(self, batch: Pairs) -> None:
        targets = batch.target[:, 1:]
        logits = self.model(batch.source, batch.target[:, :-1], batch.source_lengths)
        self.metrics["loss"].update(*self._cross_entropy(logits, targets))
        self.metrics["accuracy"].update(logits.flatten(0, 1), targets.flatten())
        found = targets if self.beam_size == 0 else self.search(batch.source, batch.source_lengths)
        texts: list[str] | None = None
        if self.beam_size > 0:
            share = self.metrics["sequence_accuracy"]
            assert isinstance(share, Mean)
            share.add(total=_equal(found, targets).sum(), count=len(found))
        if "bleu" in self.metrics:
            assert self.target_vocabulary is not None
            decode = self.target_vocabulary.decode
            texts = batch.references or [decode(row) for row in targets.tolist()]
            self.metrics["bleu"].update([decode(row) for row in found.tolist()], texts)
        self._keep(batch, found, texts)

    def _keep(self, batch: Pairs, found: Tensor, texts: Sequence[str] | None) -> None:
        for row in range(min(SAMPLES - len(self._samples), len(found))):
            source, target, own = (
                _unpadded(tokens[row].tolist())
                for tokens in (batch.source, batch.target[:, 1:], found)
            )
            self._samples.append(Sample(source, target, own, texts[row] if texts else None))

    def reset(self) -> None:
        super().reset()
        self._samples = []

    def predict(self, batch: Any) -> Texts:
        """What the model writes for each source; without a vocabulary, the numbers of the tokens.

        Args:
            batch: pairs, or only their source and its lengths.
        """
        source, source_lengths = batch[:2]
        rows = self.search(source, source_lengths).tolist()
        return Texts([as_text(_unpadded(row), self.target_vocabulary) for row in rows])

    def search(
        self,
        source: Tensor,
        source_lengths: Tensor,
        *,
        beam_size: int | None = None,
        length_penalty: float | None = None,
    ) -> Tensor:
        """What the model writes: tokens with their end, and padding, ``(batch, T)``.

        Args:
            source: ``(batch, S)``.
            source_lengths: ``(batch,)`` on the CPU.
            beam_size: the task's if None.
            length_penalty: the task's if None.
        """
        beam_size = max(1, self.beam_size) if beam_size is None else beam_size
        alpha = self.length_penalty if length_penalty is None else length_penalty
        check_beam(beam_size, alpha)
        most = (self.length_factor * source_lengths).long() + self.length_constant
        model: Any = self.model
        with evaluation_mode(model):
            if beam_size == 1:
                return greedy_search(model, source, source_lengths, most=most)
            return beam_search(
                model, source, source_lengths, most=most, beam_size=beam_size, alpha=alpha
            )

    def translate(
        self,
        lines: Iterable[str],
        *,
        beam_size: int | None = None,
        length_penalty: float | None = None,
        batch_size: int = 64,
    ) -> Iterator[str]:
        """Translates texts, a batch of them at a time; an empty one stays empty.

        Args:
            lines: read only as far as they are needed.
            beam_size: the task's if None.
            length_penalty: the task's if None.
            batch_size: texts that are translated together.
        """
        if self.source_vocabulary is None or self.target_vocabulary is None:
            raise ValueError(
                "source_vocabulary and target_vocabulary must be given to translate, but the data "
                "of this model are numbers; name a run on sentences"
            )
        device = next(self.model.parameters()).device
        texts = iter(lines)
        while group := list(islice(texts, batch_size)):
            sources = [self.source_vocabulary.encode(text) for text in group]
            rows = [[*tokens, END] for tokens in sources if tokens]
            written = iter(())
            if rows:
                source = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], True, PAD)
                found = self.search(
                    source.to(device),
                    torch.tensor([len(row) for row in rows]),
                    beam_size=beam_size,
                    length_penalty=length_penalty,
                )
                written = iter(found.tolist())
            for tokens in sources:
                yield self.target_vocabulary.decode(next(written)) if tokens else ""

    def next_steps(self, data: Any) -> list[str]:
        if self.target_vocabulary is None:
            return []
        return ["scripts/translate.py run={run} < sentences.txt"]

    def example_inputs(self, batch: Pairs) -> tuple[Any, ...]:
        return batch.source, batch.target[:, :-1], batch.source_lengths

    def show(self) -> dict[str, Shown]:
        """A few translations, where the model looked, and its embeddings.

        Returns:
            ``translations``: a few sources, the right targets and what the model wrote;
            ``attention/<layer>``: where the model looked while it wrote the first of these; and the
            vectors of the vocabularies, by the names of the model's modules.
        """
        return self._translations() | self._attention() | self._embeddings()

    def _translations(self) -> dict[str, Shown]:
        if self.target_vocabulary is None or self.source_vocabulary is None:
            return {}
        blocks = []
        for sample in self._samples:
            source = self.source_vocabulary.decode(sample.source)
            target = self.target_vocabulary.decode(sample.target)
            own = self.target_vocabulary.decode(sample.found)
            blocks.append(f"source     {source}\nreference  {sample.reference or target}")
            if self.beam_size > 0:
                blocks[-1] += f"\nours       {own}"
        return {"translations": Text("\n\n".join(blocks))} if blocks else {}

    def _attention(self) -> dict[str, Shown]:
        model: Any = self.model
        if not self._samples or not isinstance(self.model, HasAttentionMaps):
            return {}
        sample = self._samples[0]
        device = next(model.parameters()).device
        source = torch.tensor([sample.source], device=device)
        shown = torch.tensor([[BEGIN, *sample.found[:-1]]], device=device)
        maps = model.attention_maps(source, shown, torch.tensor([len(sample.source)]))
        read = _shown(sample.source, self.source_vocabulary)
        written = _shown(sample.found, self.target_vocabulary)
        return shown_attention(maps, read, written)

    def _embeddings(self) -> dict[str, Shown]:
        found: dict[str, Shown] = {}
        for name, module in self.model.named_modules():
            is_source = name.startswith(("source", "encoder"))
            vocabulary = self.source_vocabulary if is_source else self.target_vocabulary
            if vocabulary is None or not isinstance(module, nn.Embedding):
                continue
            if len(module.weight) == len(vocabulary):
                found[name] = Vectors(module.weight.detach(), vocabulary.tokens())
        return found


def check_beam(beam_size: int, length_penalty: float, *, least: int = 1) -> None:
    """Refuses a beam that is too narrow and a length penalty that is not a small number."""
    if beam_size < least:
        raise ValueError(f"beam_size must be at least {least}, not {beam_size}")
    if not 0 <= length_penalty <= 10:
        raise ValueError(f"length_penalty must be between 0 and 10, not {length_penalty}")


def _unpadded(tokens: Sequence[int]) -> list[int]:
    return [number for number in tokens if number != PAD]


def _shown(numbers: Sequence[int], vocabulary: Vocabulary | None) -> list[str]:
    """Tokens as they are shown; without a vocabulary, their numbers."""
    if vocabulary is None:
        return ["</s>" if number == END else str(number) for number in numbers]
    tokens = vocabulary.tokens()
    return [tokens[number] for number in numbers]


def _equal(found: Tensor, targets: Tensor) -> Tensor:
    """Which rows of two padded batches are the same sequence, ``(batch,)``."""
    width = max(found.size(1), targets.size(1))
    found, targets = (F.pad(rows, (0, width - rows.size(1))) for rows in (found, targets))
    return (found == targets).all(1)


def _has_cache(state: Any) -> bool:
    if isinstance(state, tuple | list):
        return any(map(_has_cache, state))
    return isinstance(state, KeyValueCache)
