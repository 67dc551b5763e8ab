import math
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.tasks.seen import images_of, texts_of, vectors_of
from zoo.inference.decoding import beam_search
from zoo.layers.attention import KeyValueCache
from zoo.metrics.bleu import Bleu, tokenized
from zoo.tasks.translation import Translation
from zoo.training.evaluation import measure

PAD, UNKNOWN, BEGIN, END = range(4)


class Batch(NamedTuple):
    source: Tensor
    source_lengths: Tensor
    target: Tensor
    target_lengths: Tensor
    references: list[str]


class Words:
    """A vocabulary of a few words."""

    pad, unknown, begin, end, mask = PAD, UNKNOWN, BEGIN, END, None

    def __init__(self, words):
        self.names = ["<pad>", "<unk>", "<s>", "</s>", *words.split()]

    def __len__(self):
        return len(self.names)

    def encode(self, text):
        return [self.names.index(w) if w in self.names else UNKNOWN for w in text.split()]

    def decode(self, tokens):
        return " ".join(self.names[token] for token in tokens if token > END)

    def tokens(self):
        return self.names


GERMAN, ENGLISH = Words("ein Hund Mann läuft schläft"), Words("a dog man runs sleeps")


class Recurrent(nn.Module):
    """An encoder-decoder of two GRUs and an attention that only shows off."""

    def __init__(self, vocab_size=9, hidden_size=24, dropout=0.0):
        super().__init__()
        self.source_embedding = nn.Embedding(vocab_size, hidden_size)
        self.embedding = nn.Embedding(vocab_size, hidden_size)
        self.reader = nn.GRU(hidden_size, hidden_size, batch_first=True)
        self.writer = nn.GRU(hidden_size, hidden_size, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden_size, vocab_size)
        self.calls = []

    def forward(self, source, target, source_lengths=None):
        return self.decode(target, self.encode(source, source_lengths))[0]

    def encode(self, source, source_lengths=None):
        packed = nn.utils.rnn.pack_padded_sequence(
            self.source_embedding(source), source_lengths, batch_first=True, enforce_sorted=False
        )
        return self.reader(packed)[1]

    def decode(self, tokens, state):
        self.calls.append(tokens)
        output, state = self.writer(self.dropout(self.embedding(tokens)), state)
        return self.head(output), state

    def reorder(self, state, rows):
        return state[:, rows]

    def attention_maps(self, source, target, source_lengths=None):
        shape = (len(source), 2, target.size(1), source.size(1))
        return {"decoder": torch.full(shape, 1 / source.size(1))}


class Cached(Recurrent):
    """Keeps something in a cache, as a Transformer does."""

    def encode(self, source, source_lengths=None):
        return (
            super().encode(source, source_lengths),
            [KeyValueCache(1)],
        )


PAIRS = [
    ("ein Hund läuft", "a dog runs"),
    ("ein Mann schläft", "a man sleeps"),
    ("Hund", "dog"),
    ("ein Mann läuft ein Mann", "a man runs a man"),
]


def batch_of(pairs=PAIRS, references=True):
    def padded(rows):
        rows = [torch.tensor(row) for row in rows]
        return nn.utils.rnn.pad_sequence(rows, True), torch.tensor([len(row) for row in rows])

    source = padded([[*GERMAN.encode(german), END] for german, _ in pairs])
    target = padded([[BEGIN, *ENGLISH.encode(english), END] for _, english in pairs])
    texts = [english.capitalize() for _, english in pairs] if references else []
    return Batch(*source, *target, texts)


def task_of(model=None, **settings):
    torch.manual_seed(0)
    vocabularies = {"source_vocabulary": GERMAN, "target_vocabulary": ENGLISH}
    return Translation(model or Recurrent(), **(vocabularies | settings))


@pytest.fixture(scope="module")
def trained():
    """A task whose model knows the four sentences by heart."""
    task, batch = task_of(), batch_of()
    optimizer = torch.optim.Adam(task.model.parameters(), lr=0.02)
    for _ in range(120):
        loss, _ = task.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return task


def test_loss_is_the_mean_over_the_real_tokens_of_the_target():
    task, batch = task_of(), batch_of()
    loss, count = task.loss(batch)
    rows, total = len(PAIRS), 0.0
    for row in range(rows):
        n, m = batch.source_lengths[row], batch.target_lengths[row]
        logits = task.model(
            batch.source[row : row + 1, :n], batch.target[row : row + 1, : m - 1], n[None]
        )
        total += F.cross_entropy(logits[0], batch.target[row, 1:m], reduction="sum")
    assert count == sum(len(english.split()) + 1 for _, english in PAIRS)
    torch.testing.assert_close(loss, total / count)


def test_label_smoothing_mixes_in_the_uniform_distribution_but_not_at_padding():
    task, batch = task_of(label_smoothing=0.3), batch_of()
    logits = task.model(batch.source, batch.target[:, :-1], batch.source_lengths).log_softmax(-1)
    targets = batch.target[:, 1:]
    real = targets != PAD
    right = -logits.gather(2, targets.unsqueeze(2)).squeeze(2)[real].mean()
    uniform = -logits.mean(2)[real].mean()
    torch.testing.assert_close(task.loss(batch)[0], 0.7 * right + 0.3 * uniform)
    task.evaluate(batch)
    assert task.compute()["loss"] == pytest.approx(right.item())
    assert task.compute()["perplexity"] == pytest.approx(math.exp(right.item()))


def test_accumulated_batches_are_one_large_batch():
    task, batch = task_of(), batch_of()
    whole, count = task.loss(batch)
    parts = [task.loss(batch_of(PAIRS[i : i + 1])) for i in range(4)]
    torch.testing.assert_close(sum(loss * n for loss, n in parts) / count, whole)


def test_metrics_of_two_batches_are_those_of_the_whole(trained):
    trained.reset()
    trained.evaluate(batch_of())
    whole = trained.compute()
    trained.reset()
    trained.evaluate(batch_of(PAIRS[:1]))
    trained.evaluate(batch_of(PAIRS[1:]))
    assert trained.compute() == pytest.approx(whole)


def test_a_few_sentences_are_learned_by_heart(trained):
    batch = batch_of()
    metrics = measure(trained, [batch])
    assert metrics["loss"] < 0.1
    assert metrics["accuracy"] == metrics["sequence_accuracy"] == 1.0
    assert metrics["bleu_tokenized"] == pytest.approx(100)
    assert metrics["bleu"] < 90  # The references begin with a capital, the translations do not.
    assert trained.search(*batch[:2]).tolist() == batch.target[:, 1:].tolist()
    assert trained.predict(batch).texts == [english for _, english in PAIRS]
    assert trained.predict(batch[:2]) == trained.predict(batch)
    for beam_size in (1, 3):
        found = list(trained.translate((g for g, _ in PAIRS), beam_size=beam_size))
        assert found == [english for _, english in PAIRS]


def test_sequence_accuracy_counts_whole_sequences_alone(trained):
    wrong_end = [*PAIRS[:3], ("ein Mann läuft ein Mann", "a man runs a dog")]
    longer = [*PAIRS[:3], ("ein Mann läuft ein Mann", "a man runs a man runs a man")]
    for pairs in (wrong_end, longer):
        assert measure(trained, [batch_of(pairs)])["sequence_accuracy"] == 0.75


def test_without_a_vocabulary_there_is_no_bleu_and_without_a_beam_nothing_is_written(trained):
    numbers = Translation(trained.model)
    metrics = measure(numbers, [batch_of(references=False)])
    assert metrics["sequence_accuracy"] == 1.0
    assert set(metrics) == {"loss", "perplexity", "accuracy", "sequence_accuracy"}
    assert texts_of(numbers) == {}
    silent = task_of(trained.model, beam_size=0)
    assert set(measure(silent, [batch_of()])) == {"loss", "perplexity", "accuracy"}
    assert "ours" not in texts_of(silent)["translations"]


def test_targets_without_text_are_their_own_reference(trained):
    assert measure(trained, [batch_of(references=False)])["bleu"] == pytest.approx(100)


def test_translations_keep_their_order_and_are_made_as_they_are_asked_for(trained):
    lines = ["", *(german for german, _ in PAIRS), "   ", "Katze", ""] * 3
    taken = []

    def reading():
        for line in lines:
            taken.append(line)
            yield line

    found = trained.translate(reading(), batch_size=5)
    first = next(found)
    assert first == "" and len(taken) == 5
    rest = list(found)
    assert len(rest) == len(lines) - 1
    singly = [next(trained.translate([line])) for line in lines]
    assert [first, *rest] == singly
    assert singly[:6] == ["", *(english for _, english in PAIRS), ""]
    assert list(trained.translate([])) == []


def test_texts_show_source_reference_and_translation(trained):
    measure(trained, [batch_of()])
    text = texts_of(trained)["translations"]
    assert text.startswith(
        "source     ein Hund läuft\nreference  A dog runs\nours       a dog runs\n"
    )
    assert text.count("source") == 4
    measure(trained, [batch_of(PAIRS * 4)])
    assert texts_of(trained)["translations"].count("source") == 5


def test_images_are_attention_maps_of_one_sentence(trained):
    measure(trained, [batch_of()])
    (image,) = images_of(trained).values()
    assert set(images_of(trained)) == {"attention/decoder"}
    assert image.shape[0] == 3 and image.min() >= 0 and image.max() <= 1
    measure(Translation(trained.model), [batch_of()])
    trained.reset()
    assert images_of(trained) == {} and texts_of(trained) == {}


def test_images_name_tokens_and_the_end_where_there_is_no_vocabulary(trained, monkeypatch):
    shown = []

    def draw(weights, source, target):
        shown.append((source, target))
        assert weights.shape[1:] == (len(target), len(source))

    monkeypatch.setattr("zoo.tasks.vocabulary.alignment_image", draw)
    bare = Translation(trained.model)
    measure(bare, [batch_of()])
    images_of(bare)
    measure(trained, [batch_of()])
    images_of(trained)
    (numbers, found), (words, translation) = shown
    assert words == ["ein", "Hund", "läuft", "</s>"]
    assert translation == ["a", "dog", "runs", "</s>"]
    german, english = trained.source_vocabulary, trained.target_vocabulary
    assert numbers == [*map(str, german.encode("ein Hund läuft")), "</s>"]
    assert found == [*map(str, english.encode("a dog runs")), "</s>"]


def test_embeddings_are_labelled_with_the_right_language():
    task = task_of(target_vocabulary=Words("a dog man runs sleeps more"), model=Recurrent(10))
    assert {name: labels for name, (_, labels) in vectors_of(task).items()} == {
        "embedding": task.target_vocabulary.names
    }
    assert set(vectors_of(task_of())) == {"source_embedding", "embedding"}


def test_forced_teaching_shows_the_target_and_free_running_the_guesses():
    batch = batch_of()
    for share in (0.0, 1.0):
        task = task_of(teacher_forcing=share)
        torch.manual_seed(3)
        task.loss(batch)
        shown = torch.cat(task.model.calls, 1)
        if share == 1.0:
            assert torch.equal(shown, batch.target[:, :-1])
            continue
        state = task.model.encode(batch.source, batch.source_lengths)
        tokens, expected = batch.target[:, :1], []
        for _ in range(batch.target.size(1) - 1):
            expected.append(tokens)
            logits, state = task.model.decode(tokens, state)
            tokens = logits.argmax(-1)
        assert torch.equal(shown, torch.cat(expected, 1))


def test_scheduled_sampling_shows_true_tokens_at_the_rate_that_is_asked_for():
    task = task_of(Recurrent(), teacher_forcing=0.75)
    with torch.no_grad():
        task.model.head.bias[UNKNOWN] = 1e4  # Every guess is a token that no target has.
    batch = batch_of(PAIRS[-1:] * 2000)
    loss, count = task.loss(batch)
    shown = torch.cat(task.model.calls, 1)
    assert (shown[:, 0] == BEGIN).all()
    assert abs((shown[:, 1:] != UNKNOWN).double().mean() - 0.75) < 0.02
    # Drawn for every token by itself: neither rows nor steps are all true or all guessed.
    assert (shown[:, 1:] != UNKNOWN).double().mean(0).min() > 0.6
    assert count == 6 * 2000 and loss.isfinite()


def test_scheduled_sampling_learns_through_every_step():
    task = task_of(teacher_forcing=0.5)
    task.loss(batch_of())[0].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in task.model.parameters())


def test_scheduled_sampling_is_refused_where_decoding_has_a_cache():
    task = task_of(Cached(), teacher_forcing=0.5)
    with pytest.raises(ValueError, match=r"teacher_forcing must be 1 with a model that .*not 0.5"):
        task.loss(batch_of())


def test_dropout_is_off_while_searching_and_the_mode_is_kept():
    task, batch = task_of(Recurrent(dropout=0.9)), batch_of()
    found = [task.search(*batch[:2]) for _ in range(3)]
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    assert task.model.training and not found[0].requires_grad


def test_search_uses_the_beam_and_the_limits_of_the_task():
    task, batch = task_of(beam_size=3, length_factor=0.5, length_constant=2), batch_of()
    most = batch.source_lengths // 2 + 2
    found = task.search(*batch[:2])
    assert ((found != PAD).sum(1) <= most).all()
    task.model.eval()
    with torch.no_grad():
        expected = beam_search(
            task.model, *batch[:2], most=most, beam_size=3, alpha=task.length_penalty
        )
    assert torch.equal(found, expected)


def test_model_is_traced_with_the_arguments_it_takes(trained):
    batch = batch_of()
    assert trained.model(*trained.example_inputs(batch)).shape == (4, 6, 9)


def test_bleu_is_sacrebleus_and_agrees_with_torchmetrics_on_the_same_words():
    torchmetrics = pytest.importorskip("torchmetrics.text")
    sacrebleu = pytest.importorskip("sacrebleu")
    found = [
        "A man's dog is running on the well-kept grass.",
        "the two women, in red, walk .",
        "He jumps over 3,000 people!",
    ]
    right = [
        "A man's dog runs on the well-kept green grass.",
        "Two women in red walk.",
        "He jumps over 3,000 people!",
    ]
    metric = Bleu()
    metric.update(found[:1], right[:1])
    metric.update(found[1:], right[1:])
    values = metric.compute()
    assert values["bleu"] == sacrebleu.corpus_bleu(found, [right]).score
    words = torchmetrics.BLEUScore()([tokenized(t) for t in found], [[tokenized(t)] for t in right])
    assert values["bleu_tokenized"] == pytest.approx(100 * words.item(), rel=1e-5)
    metric.reset()
    assert math.isnan(metric.compute()["bleu"])


def test_words_of_bleu():
    assert (
        tokenized("A man's T-shirt, isn’t it? 3.5 €") == "a man 's t - shirt , isn ’t it ? 3 . 5 €"
    )


def test_bleu_of_unequal_numbers_is_refused():
    with pytest.raises(ValueError, match=r"references must be one for each of the 2 .* not 1"):
        Bleu().update(["a", "b"], ["a"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"label_smoothing": 1.5}, "label_smoothing must be between 0 and 1, not 1.5"),
        ({"teacher_forcing": -0.1}, "teacher_forcing must be between 0 and 1, not -0.1"),
        ({"beam_size": -1}, "beam_size must be at least 0, not -1"),
        ({"length_penalty": -1.0}, "length_penalty must be between 0 and 10, not -1.0"),
        ({"length_factor": -1.0}, "length_factor must not be negative, not -1.0"),
        ({"length_constant": 0}, "length_constant must be at least 1, not 0"),
    ],
)
def test_nonsense_is_refused_with_the_value(settings, message):
    with pytest.raises(ValueError, match=message):
        task_of(**settings)


def test_what_does_not_fit_together_is_refused(trained):
    task = task_of(trained.model, target_vocabulary=Words("a dog"))
    with pytest.raises(ValueError, match=r"target_vocabulary has 6 tokens, .* not \(4, 6, 9\)"):
        task.loss(batch_of())
    with pytest.raises(ValueError, match="source_vocabulary and target_vocabulary must be given"):
        next(Translation(trained.model).translate(["a"]))
    with pytest.raises(ValueError, match="beam_size must be at least 1, not 0"):
        next(trained.translate(["ein"], beam_size=0))
