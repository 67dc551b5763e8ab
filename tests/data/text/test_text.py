import hashlib
import itertools

import pytest
import torch

from zoo.data.download import DataError
from zoo.data.loading.bptt import ContiguousLoader, TextBatch
from zoo.data.loading.windows import WindowLoader
from zoo.data.text import text as text_module
from zoo.data.text.text import StandardLibrary, TinyShakespeare, WholeText
from zoo.data.text.vocabularies import learn_vocabulary


class Small(WholeText):
    content = "the quick brown fox jumps over the lazy dog. " * 20 + "Zebra"

    def text(self):
        return self.content


def tracks(n=100, **changes):
    settings = {"batch_size": 3, "sequence_length": 4}
    return ContiguousLoader(torch.arange(n), **(settings | changes))


def test_targets_are_the_next_tokens_and_rows_go_on_from_batch_to_batch():
    batches = list(tracks(shuffle=True).batches(2))
    assert len(batches) == 8
    for batch in batches:
        assert isinstance(batch, TextBatch)
        assert batch.inputs.shape == batch.targets.shape == (3, 4)
        assert torch.equal(batch.targets, (batch.inputs + 1) % 100)
        assert batch.inputs.is_contiguous() and batch.targets.is_contiguous()
    for before, after in itertools.pairwise(batches):
        assert torch.equal(after.inputs[:, 0], before.targets[:, -1])
    assert [batch.is_start for batch in batches] == [True] + [False] * 7
    assert torch.cat([b.inputs.flatten() for b in batches]).unique().numel() == 96


def test_tracks_are_a_function_of_seed_and_epoch_alone():
    def first(seed, epoch):
        return next(tracks(shuffle=True, seed=seed).batches(epoch)).inputs[0, 0].item()

    assert first(0, 0) == first(0, 0)
    assert len({first(s, e) for s in range(3) for e in range(3)}) > 6


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("start", [0, 1, 5, 7, 8, 9, 20])
def test_starting_at_any_batch_gives_the_batches_of_the_whole_epoch(start, shuffle):
    loader = tracks(shuffle=shuffle)
    whole, rest = list(loader.batches(3)), list(loader.batches(3, start))
    assert len(whole) == len(loader)
    assert len(rest) == max(0, len(whole) - start)
    for a, b in zip(rest, whole[start:], strict=True):
        assert torch.equal(a.inputs, b.inputs) and torch.equal(a.targets, b.targets)
        assert a.is_start == b.is_start


@pytest.mark.parametrize("shuffle", [True, False])
def test_indices_are_where_each_row_begins(shuffle):
    loader = tracks(shuffle=shuffle)
    for number, batch in enumerate(loader.batches(1)):
        assert loader.indices(1, number) == batch.inputs[:, 0].tolist()
    assert loader.num_samples == sum(len(batch.inputs) for batch in loader.batches(1))


@pytest.mark.parametrize("n", [2, 3, 4, 13, 37, 99, 100, 101, 102])
@pytest.mark.parametrize("batch_size", [1, 3, 12])
@pytest.mark.parametrize("sequence_length", [1, 4, 50])
def test_evaluation_targets_every_token_but_the_first_exactly_once(n, batch_size, sequence_length):
    loader = tracks(n, batch_size=batch_size, sequence_length=sequence_length)
    batches = list(loader.batches(0))
    assert len(batches) == len(loader)
    targets = torch.cat([batch.targets.flatten() for batch in batches])
    assert targets.sort().values.tolist() == list(range(1, n))
    before = None
    for batch in batches:
        assert torch.equal(batch.targets, batch.inputs + 1)
        assert batch.inputs.shape[1] <= sequence_length
        if not batch.is_start:
            assert torch.equal(batch.inputs[:, 0], before.targets[:, -1])
        before = batch
    assert batches[0].is_start


def test_a_text_too_short_for_its_tracks_is_refused_with_the_numbers():
    with pytest.raises(ValueError, match=r"must be at most 11, .* not 3 \* 4"):
        tracks(11, shuffle=True)


@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32, torch.int32])
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize(("n", "batch_size"), [(103, 3), (12, 2), (13, 3), (5, 1), (4, 1)])
def test_narrow_tokens_of_a_file_give_the_batches_of_those_in_memory(n, batch_size, shuffle, dtype):
    tokens = torch.randint(60_000, (n,))
    settings = {"batch_size": batch_size, "sequence_length": 4, "shuffle": shuffle}
    loader = ContiguousLoader(tokens.to(dtype), **settings)
    for epoch, start in itertools.product(range(8), (0, 2)):
        there = ContiguousLoader(tokens, **settings).batches(epoch, start)
        for a, b in zip(loader.batches(epoch, start), there, strict=True):
            assert a.inputs.dtype == a.targets.dtype == torch.int64
            assert torch.equal(a.inputs, b.inputs) and torch.equal(a.targets, b.targets)
            assert a.inputs.is_contiguous() and a.is_start == b.is_start


def text_of(module, split):
    """The text that the batches of a split hold, for windows that come in order."""
    vocabulary = module.vocabularies["vocabulary"]
    rows = [row for batch in module.batches(split, 0) for row in batch.targets]
    first = next(module.batches(split, 0)).inputs[0, :1]
    return vocabulary.decode(torch.cat([first, *rows]))


@pytest.mark.parametrize("order", ["tracks", "windows"])
@pytest.mark.parametrize("kind", ["characters", "bytes", "bpe"])
def test_every_lossless_kind_of_tokens_reads_the_last_tenth_of_the_characters(kind, order):
    size = 300 if kind == "bpe" else None
    module = Small(batch_size=1, sequence_length=5, order=order, vocabulary=kind, vocab_size=size)
    module.setup()
    vocabulary = module.vocabularies["vocabulary"]
    assert module.facts() == {"vocab_size": len(vocabulary), "sequence_length": 5}
    cut = int(0.9 * len(Small.content))
    assert text_of(module, "val") == Small.content[cut:]
    assert isinstance(
        module.loaders["val"], ContiguousLoader if order == "tracks" else WindowLoader
    )
    batches = list(module.batches("train", 0))
    assert all(batch.inputs.shape[1] == 5 for batch in batches)
    if order == "windows":
        assert all(batch.is_start for batch in batches)


def test_characters_are_those_of_the_whole_text_and_words_those_of_the_training_text():
    module = Small()
    module.setup()
    assert module.vocabularies["vocabulary"].tokens()[1:] == [*".Zabcdefghijklmnopqrstuvwxyz"]
    for kind, size in (("words", None), ("bpe", 300)):
        module = Small(vocabulary=kind, vocab_size=size, sequence_length=4, batch_size=2)
        module.setup()
        train = Small.content[: int(0.9 * len(Small.content))]
        expected = learn_vocabulary(kind, [train], vocab_size=size)
        assert module.vocabularies["vocabulary"].to_json() == expected.to_json()
    assert "Zebra" not in expected.tokens()


def test_a_mask_is_one_of_the_special_tokens_and_stands_in_no_batch():
    module = Small(mask_token=True, order="windows")
    module.setup()
    vocabulary = module.vocabularies["vocabulary"]
    assert (vocabulary.pad, vocabulary.mask) == (0, 4)
    assert all(batch.inputs.min() > 4 for batch in module.batches("train", 0))


def test_a_vocabulary_that_is_there_is_used_and_not_learned(monkeypatch):
    settings = {"vocabulary": "bpe", "vocab_size": 280, "batch_size": 2, "sequence_length": 4}
    module = Small(**settings)
    module.setup()
    again = Small(**settings)
    again.vocabularies["vocabulary"] = module.vocabularies["vocabulary"]
    assert again.facts() == module.facts()  # needs no data
    monkeypatch.setattr(text_module, "learn_vocabulary", None)
    again.setup()
    assert again.vocabularies["vocabulary"] is module.vocabularies["vocabulary"]
    for a, b in zip(module.batches("train", 2), again.batches("train", 2), strict=True):
        assert torch.equal(a.inputs, b.inputs)


@pytest.mark.parametrize("settings", [{"vocabulary": "bytes"}, {"mask_token": True}])
def test_a_vocabulary_of_another_kind_than_the_one_that_is_there_is_refused(settings):
    module = Small(**settings)
    module.vocabularies["vocabulary"] = learn_vocabulary("characters", [Small.content])
    with pytest.raises(ValueError, match="vocabulary must be characters without mask"):
        module.setup()


def test_a_vocabulary_that_lacks_a_character_of_the_text_is_refused():
    module = Small()
    module.vocabularies["vocabulary"] = learn_vocabulary("characters", ["abc"])
    with pytest.raises(ValueError, match="text must consist of the 3 characters"):
        module.setup()


def test_the_standard_library_is_the_same_text_each_time_and_its_checksum_is_in_the_run():
    module = StandardLibrary()
    text = module.text()
    assert 1_200_000 < len(text) < 1_800_000 and "def parse_args(self" in text
    resolved = module.resolved()
    assert resolved["sha256"] == hashlib.sha256(text.encode()).hexdigest()
    module.setup()
    again = StandardLibrary(**module.resolved())
    again.setup()
    assert again.resolved() == module.resolved()
    assert 95 < again.facts()["vocab_size"] < 120


def test_another_standard_library_than_the_runs_is_refused():
    with pytest.raises(DataError, match=r"standard library of Python 3\..* is not the text of"):
        StandardLibrary(sha256="0" * 64).setup()


def test_a_standard_library_without_source_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(text_module.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(DataError, match="source of Python's standard library is incomplete"):
        StandardLibrary().setup()


def test_tiny_shakespeare_is_downloaded_and_checked(web, tmp_path, monkeypatch):
    content = "First Citizen:\nBefore we proceed any further, hear me speak.\n" * 30
    (web.folder / "input.txt").write_text(content)
    monkeypatch.setattr(TinyShakespeare, "url", f"{web.url}/input.txt")
    with pytest.raises(DataError, match="wrong checksum"):
        TinyShakespeare(root=str(tmp_path)).setup()
    checksum = hashlib.sha256(content.encode()).hexdigest()
    monkeypatch.setattr(TinyShakespeare, "checksum", checksum)
    for _ in range(2):
        TinyShakespeare(root=str(tmp_path), batch_size=2).setup()
    assert (tmp_path / "tinyshakespeare" / "input.txt").read_text() == content
    assert len(web.requests) == 2


def test_tiny_shakespeare_without_a_connection_says_what_to_do(dead_url, tmp_path, monkeypatch):
    monkeypatch.setattr(TinyShakespeare, "url", f"{dead_url}/input.txt")
    with pytest.raises(DataError, match=r"could not download .*tinyshakespeare/input.txt by hand"):
        TinyShakespeare(root=str(tmp_path)).setup()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"sequence_length": 0}, "sequence_length must be at least 1, not 0"),
        ({"order": "rows"}, "order must be one of tracks, windows, not 'rows'"),
        ({"vocabulary": "letters"}, "vocabulary must be one of characters, .*, not 'letters'"),
        ({"vocabulary": "bpe"}, "vocab_size must be at least 256 for bpe, not None"),
        (
            {"vocabulary": "bpe", "vocab_size": 260, "mask_token": True},
            "vocab_size must be at least 261 for bpe, .* not 260",
        ),
        ({"vocab_size": 65}, "vocab_size must be None with characters, not 65"),
    ],
)
def test_nonsense_is_refused_with_the_value(settings, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        StandardLibrary(**settings)


@pytest.mark.data
def test_real_tiny_shakespeare_has_its_known_sizes(data_dir):
    if not (data_dir / "tinyshakespeare").is_dir():
        pytest.skip(f"no tinyshakespeare in {data_dir}")
    module = TinyShakespeare(root=str(data_dir))
    module.setup()
    assert module.facts()["vocab_size"] == 65
    targets = sum(batch.targets.numel() for batch in module.batches("val", 0))
    assert targets == 111_540 - 1
    assert module.num_batches("train") == 1_003_854 // 12 // 64


@pytest.mark.data
@pytest.mark.parametrize(("kind", "size"), [("bpe", 1000), ("words", 5000)])
def test_real_tiny_shakespeare_in_words_and_pieces_of_words(data_dir, kind, size):
    if not (data_dir / "tinyshakespeare").is_dir():
        pytest.skip(f"no tinyshakespeare in {data_dir}")
    module = TinyShakespeare(root=str(data_dir), vocabulary=kind, vocab_size=size)
    module.setup()
    assert module.facts()["vocab_size"] == size
    targets = sum(batch.targets.numel() for batch in module.batches("val", 0))
    assert 20_000 < targets < 60_000
    text = module.text()[-111_540:]
    vocabulary = module.vocabularies["vocabulary"]
    if kind == "bpe":
        assert vocabulary.decode(vocabulary.encode_tensor(text)) == text
    assert len(vocabulary.encode(text)) == targets + 1
