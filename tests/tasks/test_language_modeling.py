import io
import math

import pytest
import torch
from torch import nn

from tests.tasks.seen import texts_of
from zoo.data.text.characters import ByteVocabulary, CharacterVocabulary
from zoo.data.text.words import WordVocabulary
from zoo.inference.generation import Sampler
from zoo.tasks.language_modeling import LanguageModeling

LETTERS = CharacterVocabulary("abcde")


class Recurrent(nn.Module):
    def __init__(self, vocab_size, hidden_size=16, dropout=0.0):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, hidden_size)
        self.lstm = nn.LSTM(hidden_size, hidden_size, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden_size, vocab_size)

    def forward(self, tokens, state=None):
        hidden, state = self.lstm(self.dropout(self.embedding(tokens)), state)
        return self.head(hidden), state


class Uniform(nn.Module):
    def __init__(self, vocab_size):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(vocab_size))

    def forward(self, tokens, state=None):
        return self.logits.expand(*tokens.shape, -1), state


def batches(parts=2, length=4, vocab_size=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    text = torch.randint(vocab_size, (3, parts * length + 1), generator=generator)
    return [
        (text[:, i : i + length], text[:, i + 1 : i + length + 1], i == 0)
        for i in range(0, parts * length, length)
    ]


def joined(parts):
    return torch.cat([p[0] for p in parts], 1), torch.cat([p[1] for p in parts], 1), True


def test_loss_of_equal_logits_is_the_logarithm_of_the_vocabularys_size():
    task = LanguageModeling(Uniform(8), vocabulary=CharacterVocabulary("abcdefgh"))
    (batch,) = batches(parts=1, vocab_size=8)
    loss, count = task.loss(batch)
    assert loss.item() == pytest.approx(math.log(8)) and count == 12
    task.evaluate(batch)
    assert task.compute() == pytest.approx(
        {"loss": math.log(8), "perplexity": 8.0, "bits_per_character": 3.0}
    )


def test_bits_are_counted_by_the_character_where_a_character_is_several_tokens():
    text = "Wörter kosten süß"  # 17 characters, 20 bytes
    task = LanguageModeling(Uniform(256), vocabulary=ByteVocabulary())
    tokens = torch.tensor([ByteVocabulary().encode(f"?{text}")])
    for part in (slice(0, 7), slice(7, 20)):
        task.evaluate((tokens[:, :-1][:, part], tokens[:, 1:][:, part], True))
    assert task.compute()["bits_per_character"] == pytest.approx(8 * 20 / 17)


def test_tokens_that_do_not_spell_the_text_have_no_bits_per_character():
    for vocabulary in (None, WordVocabulary(["the", "a", "cat", "on"], special=("<unk>",))):
        task = LanguageModeling(Uniform(5), vocabulary=vocabulary)
        task.evaluate(batches()[0])
        assert set(task.compute()) == {"loss", "perplexity"}


def test_a_model_may_return_logits_alone():
    class Stateless(Uniform):
        def forward(self, tokens):
            return super().forward(tokens)[0]

    task = LanguageModeling(Stateless(5))
    for batch in batches(parts=2):
        assert task.loss(batch)[0].item() == pytest.approx(math.log(5))
        task.evaluate(batch)
    assert task.compute()["loss"] == pytest.approx(math.log(5))


def test_perplexity_of_a_hopeless_model_is_infinite_and_no_error():
    task = LanguageModeling(Uniform(5))
    task.metrics["loss"].update(1000.0)
    assert task.compute()["perplexity"] == math.inf


def test_two_halves_with_carried_state_are_one_pass():
    task = LanguageModeling(Recurrent(5))
    parts = batches()
    whole, _ = task.loss(joined(parts))
    halves = [task.loss(part)[0] for part in parts]
    torch.testing.assert_close(sum(halves) / 2, whole)

    for part in parts:
        task.evaluate(part)
    assert task.compute()["loss"] == pytest.approx(whole.item())


def test_state_is_dropped_where_the_texts_begin_anew():
    task = LanguageModeling(Recurrent(5))
    first, second = batches()
    fresh, _ = task.loss((*second[:2], True))
    task.loss(first)
    carried, _ = task.loss(second)
    task.loss(first)
    again, _ = task.loss((*second[:2], True))
    assert torch.equal(fresh, again) and not torch.equal(fresh, carried)


def test_gradient_stops_at_the_batch_but_the_state_does_not():
    task = LanguageModeling(Recurrent(5))
    for batch in batches(parts=3):
        task.loss(batch)[0].backward()
        assert not any(part.requires_grad for part in task.state_dict()["state"])


def test_evaluation_does_not_disturb_the_training_state():
    first, second = batches()
    other = batches(parts=3, seed=1)
    task = LanguageModeling(Recurrent(5))
    task.loss(first)
    undisturbed, _ = task.loss(second)
    task.loss(first)
    task.reset()
    with torch.inference_mode():
        for batch in other:
            task.evaluate(batch)
    task.compute()
    assert torch.equal(task.loss(second)[0], undisturbed)


def test_state_dict_restores_in_mid_epoch_through_a_file():
    first, second = batches()
    task = LanguageModeling(Recurrent(5))
    task.loss(first)
    file = io.BytesIO()
    torch.save(task.state_dict(), file)
    file.seek(0)
    expected, _ = task.loss(second)

    resumed = LanguageModeling(task.model)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(resumed.loss(second)[0], expected)


def test_state_is_carried_in_half_precision_too():
    task = LanguageModeling(Recurrent(5))
    with torch.autocast("cpu", torch.bfloat16):
        losses = [task.loss(batch)[0] for batch in batches(parts=3)]
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses)


def test_state_dict_before_the_first_batch_loads():
    task = LanguageModeling(Recurrent(5))
    expected, _ = task.loss(batches()[0])
    fresh = LanguageModeling(task.model)
    fresh.load_state_dict(fresh.state_dict())
    assert torch.equal(fresh.loss(batches()[0])[0], expected)


def test_sample_is_repeatable_leaves_the_global_random_state_and_the_models_mode():
    model = Recurrent(5, dropout=0.5)
    model.dropout.eval()
    task = LanguageModeling(model, vocabulary=CharacterVocabulary("abcd\n"), sample_length=40)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    with torch.inference_mode():
        first = texts_of(task)
    assert torch.equal(torch.rand(3), expected)
    assert model.training and not model.dropout.training
    model.train()
    assert first == texts_of(task) and len(first["sample"]) == 40
    assert "".join(task.generate(sampler=Sampler(seed=1))) != first["sample"]


def test_generated_text_begins_with_the_prompt_and_carries_the_state():
    task = LanguageModeling(Recurrent(5), vocabulary=LETTERS, temperature=0)
    text = "".join(task.generate("abba", length=6))
    assert text.startswith("abba") and len(text) == 10
    tokens = torch.tensor([LETTERS.encode(text)])
    expected = task.model.eval()(tokens)[0].argmax(-1)[0, 3:-1]
    assert tokens[0, 4:].tolist() == expected.tolist()


def test_words_stand_after_those_of_the_prompt_and_none_is_unknown():
    words = WordVocabulary(["king", "queen"])
    model = Uniform(3)
    task = LanguageModeling(model, vocabulary=words)
    model.logits.data[0] = 100.0  # <unk>, which is no word to be written
    text = "".join(task.generate("king", 20))
    assert len(words.encode(text)) == 21 and words.unknown not in words.encode(text)
    assert text.startswith("king") and text == words.decode(words.encode(text))
    model.logits.data[1] = 50.0
    assert "".join(task.generate("queen", 2)) == "queen king king"
    assert "".join(task.generate(None, 2)) == "king king"
    quoting = LanguageModeling(model, vocabulary=WordVocabulary(["king", '"']))
    assert "".join(quoting.generate('"', 1)) == '"king'


def test_samples_follow_the_models_distribution():
    model = Uniform(3)
    probabilities = torch.tensor([0.5, 0.0, 0.5])
    model.logits.data = probabilities.log()
    task = LanguageModeling(model)
    drawn = torch.cat(list(task.generate_tokens(torch.zeros(200, 1, dtype=torch.int64), 50)))
    shares = drawn.flatten().bincount(minlength=3) / drawn.numel()
    assert shares[1] == 0
    torch.testing.assert_close(shares, probabilities, atol=0.02, rtol=0)


def test_low_temperature_sharpens_and_high_flattens():
    model = Uniform(2)
    model.logits.data = torch.tensor([0.0, 1.0])
    task = LanguageModeling(model)
    start = torch.zeros(100, 1, dtype=torch.int64)
    for temperature in (0.5, 1.0, 4.0):
        drawn = torch.cat(list(task.generate_tokens(start, 50, Sampler(temperature))))
        share = drawn.float().mean().item()
        assert share == pytest.approx(1 / (1 + math.exp(-1 / temperature)), abs=0.03)


def test_there_is_no_sample_without_a_vocabulary_or_a_length():
    assert texts_of(LanguageModeling(Recurrent(5))) == {}
    task = LanguageModeling(Recurrent(5), vocabulary=LETTERS, sample_length=0)
    assert texts_of(task) == {}
    assert list(task.generate("ab", length=0)) == ["ab"]


def test_a_prediction_is_what_follows_each_row():
    task = LanguageModeling(Recurrent(5), vocabulary=LETTERS, sample_length=6, temperature=0)
    tokens = torch.tensor([LETTERS.encode(text) for text in ("abba", "dcba")])
    found = task.predict((tokens, None, True))
    assert found == task.predict(tokens)
    for text, more in zip(("abba", "dcba"), found.texts, strict=True):
        assert "".join(task.generate(text, 6)) == text + more
    assert LanguageModeling(task.model, sample_length=0).predict(tokens).texts == ["", ""]
    numbers = LanguageModeling(task.model, sample_length=6, temperature=0).predict(tokens).texts
    assert [LETTERS.decode(map(int, text.split())) for text in numbers] == found.texts


def test_short_text_is_learned_by_heart():
    torch.manual_seed(0)
    text = "to be or not to be"
    vocabulary = CharacterVocabulary("".join(sorted(set(text))))
    task = LanguageModeling(
        Recurrent(len(vocabulary), hidden_size=32), vocabulary=vocabulary, temperature=0
    )
    tokens = torch.tensor([vocabulary.encode(text)])
    parts = [(tokens[:, :9], tokens[:, 1:10], True), (tokens[:, 9:-1], tokens[:, 10:], False)]
    optimizer = torch.optim.Adam(task.model.parameters(), lr=0.02)
    for _ in range(120):
        for batch in parts:
            for objective in task.objectives(batch):
                optimizer.zero_grad()
                objective.loss.backward()
                optimizer.step()
    for batch in parts:
        task.evaluate(batch)
    assert task.compute()["loss"] < 0.05
    assert "".join(task.generate("t", length=len(text) - 1)) == text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sample_length": -1}, "sample_length must be at least 0, not -1"),
        ({"temperature": -0.5}, "temperature must be finite and at least 0, not -0.5"),
        ({"temperature": math.nan}, "temperature must be finite and at least 0, not nan"),
        ({"top_k": 0}, "top_k must be at least 1 or null, not 0"),
        ({"top_p": 2.0}, "top_p must be above 0 and at most 1, or null, not 2"),
        ({"prompt": "axb"}, "prompt cannot be written in the vocabulary: .* 'x'"),
        ({"prompt": ""}, "prompt must hold at least one token, not be ''"),
        ({"prompt": "a", "vocabulary": None}, "vocabulary must be given .* not None"),
    ],
)
def test_bad_argument_is_refused_with_its_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        LanguageModeling(Recurrent(5), **{"vocabulary": LETTERS, **arguments})


def test_vocabulary_that_is_larger_than_the_models_is_refused():
    task = LanguageModeling(Recurrent(5), vocabulary=CharacterVocabulary("abcdef"))
    with pytest.raises(ValueError, match=r"vocabulary has 6 tokens.*or more, not \(3, 4, 5\)"):
        task.loss(batches()[0])


def test_a_padded_vocabulary_learns_with_all_logits_and_draws_tokens_that_are_some():
    task = LanguageModeling(Uniform(16), vocabulary=LETTERS)
    (batch,) = batches(parts=1)
    assert task.loss(batch)[0].item() == pytest.approx(math.log(16))
    torch.manual_seed(0)
    assert set("".join(task.generate("a", 400))) == set("abcde")
