"""`trainer.find_batch_size`: the search, and what a trial of a size is."""

import math

import pytest
import yaml

import train
from zoo.app import batch_size
from zoo.app.batch_size import Trial, attempt, in_a_process, search, with_found_batch_size
from zoo.config.compose import compose
from zoo.config.errors import ConfigError

RUN = ("model=softmax_regression", "data=digits", "trainer.threads=1", "trainer.device=cpu")
FIND = ("trainer.find_batch_size=true", "trainer.memory_limit=100GiB")


class Machine:
    """One on which a batch takes memory in proportion to its size."""

    def __init__(self, most: int, *, samples: int = 10**6) -> None:
        self.most, self.samples, self.tried = most, samples, []

    def __call__(self, size: int) -> Trial:
        assert size not in self.tried, "tried twice"
        self.tried.append(size)
        return (
            Trial(1000 + size, self.samples, size >= self.samples) if size <= self.most else Trial()
        )


@pytest.mark.parametrize("start", [1, 3, 64, 1000, 4096])
@pytest.mark.parametrize("most", [1, 2, 7, 63, 64, 65, 1000])
def test_the_size_that_is_found_fits_and_an_eighth_more_does_not(most, start):
    machine = Machine(most)
    size, best = search(machine, start)
    assert size <= most < size + max(1, size // 8) + 1
    assert best.memory == 1000 + size
    assert len(machine.tried) <= 20


def test_no_batch_is_larger_than_the_training_split():
    machine = Machine(10**9, samples=300)
    size, best = search(machine, 32)
    assert size == 300 and best.is_whole
    assert machine.tried == [32, 64, 128, 256, 512]


def test_sizes_beyond_the_largest_that_the_data_allow_are_like_those_beyond_memory():
    def trial(size):
        return Trial(size, 10**6) if size <= 100 else Trial(refusal="must be at most 100")

    assert 89 <= search(trial, 16)[0] <= 100


def test_a_first_size_that_is_refused_is_an_error_with_the_reason():
    with pytest.raises(
        ConfigError, match=r"^trainer.find_batch_size=true: data.batch_size=16: no$"
    ):
        search(lambda size: Trial(refusal="no"), 16)


def test_too_little_memory_for_one_sample_is_an_error():
    with pytest.raises(ConfigError, match="too little memory for a batch of a single sample; use"):
        search(lambda size: Trial(), 16)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (RUN, "needs a trainer.memory_limit on a CPU, such as"),
        (["experiment=linear_diabetes"], "needs a data.batch_size to begin with, not null"),
    ],
)
def test_what_cannot_be_looked_for_is_refused(words, message):
    with pytest.raises(ConfigError, match=message):
        with_found_batch_size(train.train, compose([*words, "trainer.find_batch_size=true"]))


def test_a_trial_leaves_the_configuration_and_tells_of_the_data():
    recipe = compose([*RUN, "data.batch_size=2000"])
    found = attempt(train.train, recipe.config, (), None)
    assert found.memory > 50 * 2**20
    assert found.samples == 1258 and found.is_whole and not found.refusal
    text = ["model=char_lstm", "data=stdlib_text", "task=language_modeling"]
    refused = attempt(train.train, compose([*text, "data.batch_size=999999999"]).config, (), None)
    assert (
        refused.memory is None and "batch_size * sequence_length must be at most" in refused.refusal
    )


def test_a_process_that_takes_more_than_the_limit_is_ended():
    recipe = compose([*RUN, "data.batch_size=8"])
    assert in_a_process(train.train, recipe, 50 * 2**20) == Trial()


def test_the_size_is_in_the_runs_configuration_and_not_looked_for_again(
    tmp_path, monkeypatch, capsys
):
    words = [*RUN, *FIND, "data.batch_size=2000", "trainer.epochs=1", "logger=off"]
    assert train.main([*words, f"paths.runs_dir={tmp_path}"]) == 0
    (folder,) = tmp_path.glob("*/*")
    assert yaml.safe_load((folder / "config.yaml").read_text())["data"]["batch_size"] == 1258
    said = "data.batch_size=1258 has been found for trainer.memory_limit=100GiB ("
    log = (folder / "log.txt").read_text()
    assert said in log and "in place of 2000; the learning rate stays what it was" in log

    monkeypatch.setattr(batch_size, "in_a_process", None)
    assert train.main([f"resume={folder}", "trainer.epochs=2"]) == 0
    assert train.main([f"resume={folder}", "trainer.find_batch_size=false"]) == 2
    assert "is looked for before a run begins, and this one has its size" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("memories", "worst"), [((10, 30, 20), 30), ((10, None, 20), None), ((None, None), None)]
)
def test_what_is_too_much_for_one_process_is_too_much_for_all(memories, worst, monkeypatch):
    trials = [Trial(memory, samples=100, is_whole=True) for memory in memories]
    monkeypatch.setattr(batch_size, "of_all", lambda own: trials)
    found = batch_size._of_all(trials[0])
    assert found.memory == worst and found.is_whole
    assert found.samples == math.ceil(100 / len(memories))


def test_a_limit_that_nobody_asks_for_is_said_to_have_no_effect():
    with pytest.warns(UserWarning, match="memory_limit=4GiB has no effect: only trainer.find_batc"):
        compose([*RUN, "trainer.memory_limit=4GiB"])
