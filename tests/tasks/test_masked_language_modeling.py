import math
from typing import NamedTuple

import pytest
import torch
from torch import nn

from tests.tasks.seen import images_of, texts_of, vectors_of
from zoo.data.loading.bptt import TextBatch
from zoo.data.sequences.special import MASK, SPECIAL
from zoo.data.text.characters import CharacterVocabulary
from zoo.data.text.words import WordVocabulary
from zoo.layers.attention import padding_mask
from zoo.tasks.masked_language_modeling import MaskedLanguageModeling
from zoo.training.evaluation import measure

VOCABULARY = CharacterVocabulary("abcdefghij", (*SPECIAL, MASK))  # 15 tokens, 5 of them special


class SequenceBatch(NamedTuple):
    inputs: torch.Tensor
    targets: torch.Tensor
    lengths: torch.Tensor


class Constant(nn.Module):
    """The same logits for every place, which remembers what it was shown."""

    def __init__(self, vocab_size=15):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(vocab_size))

    def forward(self, tokens, lengths=None):
        self.seen, self.lengths = tokens, lengths
        self.output = self.logits.expand(*tokens.shape, -1)
        self.output.retain_grad() if self.output.requires_grad else None
        return self.output


class Mixer(nn.Module):
    """Every place sees all the others, weighted by distance."""

    def __init__(self, time, vocab_size=15, hidden_size=64):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, hidden_size)
        self.mix = nn.Linear(time, time)
        self.head = nn.Sequential(nn.GELU(), nn.Linear(hidden_size, vocab_size))

    def forward(self, tokens):
        return self.head(self.mix(self.embedding(tokens).transpose(1, 2)).transpose(1, 2))


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def text(batch=3, time=20):
    return torch.randint(5, 15, (batch, time))


def task(model=None, **options):
    return MaskedLanguageModeling(model or Constant(), vocabulary=VOCABULARY, **options)


def within(share, expected, count):
    """Whether a share of so many independent draws may be by chance (five deviations)."""
    return abs(share - expected) <= 5 * math.sqrt(expected * (1 - expected) / count)


def test_15_percent_are_chosen_and_of_these_80_masked_10_random_10_kept():
    tokens = text(200, 100)
    seen, targets = task().hide(tokens)
    chosen = targets != -100
    assert (chosen.sum(1) == 15).all()
    assert torch.equal(targets[chosen], tokens[chosen])
    assert torch.equal(seen[~chosen], tokens[~chosen])
    seen, original, count = seen[chosen], tokens[chosen], 200 * 15
    masked = seen == VOCABULARY.mask
    assert within(masked.double().mean().item(), 0.8, count)
    others = seen[~masked]
    assert others.min() >= 5  # no special token takes the place of another
    # One in ten of the random tokens is the one that was there.
    kept = (seen == original).double().mean().item()
    assert within(kept, 0.1 + 0.1 / 10, count)
    drawn = seen[~masked & (seen != original)].bincount(minlength=15)[5:]
    assert (drawn > 0).all()


def test_every_place_is_chosen_equally_often():
    _, targets = task().hide(text(4000, 20))
    shares = (targets != -100).double().mean(0)
    assert all(within(share.item(), 0.15, 4000) for share in shares)


def test_choice_differs_from_time_to_time_and_follows_the_global_generator():
    tokens, hide = text(), task().hide
    torch.manual_seed(1)
    first, second = hide(tokens), hide(tokens)
    torch.manual_seed(1)
    again = hide(tokens)
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[1], second[1])


@pytest.mark.parametrize(
    ("share", "expected"), [(0.15, [1, 1, 1, 2]), (0.5, [1, 1, 2, 6]), (1.0, [1, 2, 4, 12])]
)
def test_share_is_of_each_sequence_and_at_least_one_token(share, expected):
    tokens = text(4, 12)
    lengths = torch.tensor([1, 2, 4, 12])
    seen, targets = task(mask_probability=share).hide(tokens, lengths)
    assert (targets != -100).sum(1).tolist() == expected
    outside = ~padding_mask(lengths, 12)
    assert (targets[outside] == -100).all()
    assert torch.equal(seen[outside], tokens[outside])


def test_special_tokens_are_never_chosen():
    tokens = text(50, 20)
    tokens[:, :4] = torch.arange(4)
    tokens[:, 4] = VOCABULARY.mask
    _, targets = task(mask_probability=1.0).hide(tokens)
    assert (targets[:, :5] == -100).all()
    assert torch.equal(targets[:, 5:], tokens[:, 5:])
    specials = torch.tensor([[0, 1, 2, 3, 4]])
    learner = task()
    loss, count = learner.loss((specials, specials))
    assert loss.item() == 0 and count.item() == 0


def test_other_shares_than_the_papers():
    tokens = text(50, 40)
    learner = task(mask_token_share=1.0, random_token_share=0.0)
    seen, targets = learner.hide(tokens)
    assert (seen[targets != -100] == VOCABULARY.mask).all()
    seen, _ = task(mask_token_share=0.0, random_token_share=0.0).hide(tokens)
    assert torch.equal(seen, tokens)
    seen, targets = task(mask_token_share=0.0, random_token_share=1.0).hide(tokens)
    assert not (seen == VOCABULARY.mask).any()
    share = (seen != tokens)[targets != -100].double().mean().item()
    assert within(share, 0.9, 50 * 6)


def test_loss_is_the_mean_over_the_chosen_tokens_alone():
    model, tokens = Constant(), text(8, 20)
    learner = task(model)
    with torch.no_grad():
        model.logits.normal_()
    loss, count = learner.loss(TextBatch(tokens, tokens, True))
    assert count.item() == 8 * 3
    loss.backward()
    has_gradient = model.output.grad.abs().sum(-1) > 0
    assert has_gradient.sum() == count
    expected = -model.logits.log_softmax(0)[tokens[has_gradient]].mean()
    torch.testing.assert_close(loss, expected)
    # Where the model was shown another token than there is, it was asked.
    assert has_gradient[model.seen != tokens].all()


def test_lengths_reach_the_model_where_there_are_any():
    model, tokens = Constant(), text()
    learner = task(model)
    learner.loss(TextBatch(tokens, tokens, True))
    assert model.lengths is None
    lengths = torch.tensor([20, 7, 1])
    _, count = learner.loss(SequenceBatch(tokens, tokens, lengths))
    assert model.lengths is lengths
    assert count.item() == 3 + 1 + 1
    learner.predict(SequenceBatch(tokens, tokens, lengths))
    assert model.lengths is lengths


def test_untrained_metrics_are_those_of_guessing():
    learner = task()
    for time in (20, 7):
        learner.evaluate((text(3, time),))
    values = learner.compute()
    assert values["loss"] == pytest.approx(math.log(15))
    assert values["perplexity"] == pytest.approx(15)
    assert values["accuracy"] == 0.0  # of equal logits the first is taken, a special token


def test_evaluation_weighs_by_chosen_tokens_and_is_the_same_every_time():
    learner = task(Mixer(20))
    batches = [(text(1),), (text(7),)]
    first = measure(learner, batches)
    torch.rand(3)
    assert measure(learner, batches) == first
    torch.manual_seed(1234)
    losses = [learner.loss(batch) for batch in batches]
    total = sum(loss.item() * count.item() for loss, count in losses)
    assert first["loss"] == pytest.approx(total / (8 * 3), rel=1e-5)


def test_a_few_sequences_are_learned_by_heart():
    learner = task(Mixer(12))
    batch = (text(3, 12),)
    optimizer = torch.optim.Adam(learner.model.parameters(), lr=0.01)
    for _ in range(300):
        for objective in learner.objectives(batch):
            optimizer.zero_grad()
            objective.loss.backward()
            optimizer.step()
    for _ in range(10):
        learner.evaluate(batch)
    values = learner.compute()
    assert values["loss"] < 0.1
    assert values["accuracy"] > 0.95


def test_texts_show_what_was_hidden_and_what_was_guessed():
    model = Constant()
    with torch.no_grad():
        model.logits[VOCABULARY.encode("j")[0]] = 1
    learner = task(model, mask_probability=0.3)
    assert texts_of(learner) == {}
    sentence = "abcdefghab"
    tokens = torch.tensor([[*VOCABULARY.encode(sentence), 0, 0], [6] * 12])
    learner.evaluate(SequenceBatch(tokens, tokens, torch.tensor([10, 12])))
    learner.evaluate((text(),))  # the first batch is shown
    texts = texts_of(learner)
    assert list(texts) == ["masked", "filled", "original"]
    assert texts["original"].replace("[", "").replace("]", "") == sentence
    assert texts["filled"].count("[j]") == texts["masked"].count("[") == 3
    for place, letter in enumerate(sentence):
        if (at := texts["filled"].replace("[j]", "*"))[place] != "*":
            assert at[place] == letter
    learner.reset()
    assert texts_of(learner) == {}


def test_mask_token_is_shown_as_an_empty_bracket_and_words_stay_apart():
    vocabulary = WordVocabulary(["the", "cat", "sat"], special=(*SPECIAL, MASK))
    learner = MaskedLanguageModeling(
        Constant(8),
        vocabulary=vocabulary,
        mask_probability=0.3,
        mask_token_share=1.0,
        random_token_share=0.0,
    )
    learner.evaluate((torch.tensor([vocabulary.encode("the cat sat")]),))
    texts = texts_of(learner)
    assert texts["masked"] in ("[ ] cat sat", "the [ ] sat", "the cat [ ]")
    assert texts["original"] in ("[the] cat sat", "the [cat] sat", "the cat [sat]")


def test_attention_is_shown_where_the_model_has_maps():
    class Attentive(Constant):
        def attention_maps(self, tokens, lengths=None):
            time = tokens.size(1)
            return {"layer.0": torch.full((len(tokens), 2, time, time), 1 / time)}

    learner = task(Attentive())
    assert images_of(learner) == {}
    learner.evaluate((text(2, 50),))
    (name, image), *others = images_of(learner).items()
    assert name == "attention/layer.0" and not others
    assert image.ndim == 3 and image.size(0) == 3
    assert 0 <= image.min() < image.max() <= 1
    plain = task()
    plain.evaluate((text(),))
    assert images_of(plain) == {}


def test_embeddings_are_labelled_with_the_tokens():
    model = Mixer(20)
    ((name, (matrix, labels)),) = vectors_of(task(model)).items()
    assert name == "tokens"
    assert torch.equal(matrix, model.embedding.weight) and not matrix.requires_grad
    assert labels == VOCABULARY.tokens()
    assert vectors_of(task(Constant())) == {}


def test_predictions_are_probabilities_of_every_place_and_hide_nothing():
    model, tokens = Constant(), text()
    probabilities, names, _ = task(model).predict(tokens)
    assert names == VOCABULARY.tokens()
    assert torch.equal(model.seen, tokens)
    assert probabilities.shape == (3, 20, 15)
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(3, 20))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask_probability": 0.0}, r"mask_probability must be in \(0, 1\], not 0.0"),
        ({"mask_token_share": 1.1}, "mask_token_share must be between 0 and 1, not 1.1"),
        ({"random_token_share": 0.3}, "random_token_share must be between 0 and .* 0.8 .* not 0.3"),
        ({"random_token_share": -0.1}, "random_token_share must be .* not -0.1"),
        (
            {"vocabulary": CharacterVocabulary("ab", SPECIAL)},
            "vocabulary must have a mask token .* mask_token of the data",
        ),
    ],
)
def test_bad_argument_is_refused_with_its_value(options, message):
    with pytest.raises(ValueError, match=message):
        MaskedLanguageModeling(Constant(), **{"vocabulary": VOCABULARY, **options})


def test_shares_that_add_up_to_one_in_decimals_are_taken():
    task(mask_token_share=0.9, random_token_share=0.1)
    task(mask_token_share=0.7, random_token_share=0.3)


def test_vocabulary_of_another_size_than_the_models_is_refused():
    with pytest.raises(ValueError, match=r"vocabulary has 15 tokens.*not \(3, 20, 9\)"):
        task(Constant(9)).loss((text(),))
