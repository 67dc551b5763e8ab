import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.training.processes import CASES, WORLD, Part, alone, gan, gpt, trainer_of
from tests.training.test_blocks import unet
from tests.training.tiny import mlp, weights
from zoo.tasks.classification import Classification
from zoo.training.distributed.strategy import OneProcess

STRATEGIES = ("Replicated", "Sharded")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What two processes found, by rank."""
    if not torch.distributed.is_available():
        pytest.skip("this torch has no torch.distributed")
    folder = tmp_path_factory.mktemp("processes")
    program = Path(__file__).with_name("processes.py")
    processes = [
        subprocess.Popen(
            [sys.executable, str(program), str(rank), str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(WORLD)
    ]
    try:
        outputs = [process.communicate(timeout=240)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]


EQUAL = [
    (strategy, kind, settings)
    for strategy in STRATEGIES
    for kind, settings in CASES
    if (strategy, kind) != ("Sharded", "differentiates")
]


@pytest.mark.parametrize(("strategy", "kind", "settings"), EQUAL)
def test_uneven_parts_of_two_processes_equal_one_large_batch(strategy, kind, settings, found):
    # Every global batch of four is one sample in the first process and three in the second.
    expected, ours = alone(kind, settings), found[0][f"{strategy} {kind} {settings}"]
    assert list(ours["model"]) == list(expected["model"])
    for name, value in expected["model"].items():
        assert torch.allclose(ours["model"][name], value, rtol=1e-5, atol=1e-6), name
    assert ours["losses"] == pytest.approx(expected["losses"], rel=1e-5)
    for name, optimizer in expected["optimizers"].items():
        state = ours["optimizers"][name]["state"]
        for number, entry in optimizer["state"].items():
            assert state[number].keys() == entry.keys()
            for part, value in entry.items():
                assert torch.allclose(state[number][part], value, rtol=1e-5, atol=1e-6), part


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_network_of_a_gan_changes_each_of_its_parameters(strategy, found):
    before, after = gan().state_dict(), found[0][f"{strategy} gan plain"]["model"]
    assert set(before) == set(after)
    assert not any(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(("kind", "settings"), CASES)
def test_replicas_stay_equal(kind, settings, found):
    ours, theirs = (ranks[f"Replicated {kind} {settings}"]["own"] for ranks in found)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_only_an_ordinary_task_is_reduced_during_backward(found):
    engines = {kind: found[0][f"Replicated {kind} {s}"]["engine"] for kind, s in CASES}
    assert engines == {
        "ordinary": True,
        "objectives": False,
        "differentiates": False,
        "gan": False,
        "gpt": True,
    }


def test_a_shard_is_a_part_and_the_gathered_state_is_whole(found):
    parts = [ranks["Sharded ordinary plain"] for ranks in found]
    sizes = [sum(p.numel() for p in part["own"]) for part in parts]
    whole = sum(p.numel() for p in mlp().parameters())
    assert sum(sizes) == whole
    assert max(sizes) < whole
    assert sum(v.numel() for v in parts[0]["model"].values()) == whole
    assert parts[1]["model"] == {}  # the main process has it


def test_only_the_main_process_makes_the_weights_of_shards(found):
    assert [ranks["memory"] for ranks in found] == [sum(p.nbytes for p in gpt().parameters()), 0]


def test_shards_are_gathered_for_a_text_that_is_written_and_for_lists_within_blocks(found):
    first, second = (ranks["text"] for ranks in found)
    assert first == second and [len(text) for text in first] == [9]
    for ranks in found:
        assert len(ranks["levels"]) == len(list(unet().parameters())) and all(ranks["levels"])


def test_each_process_reads_its_parts_of_a_checkpoint_alone(found):
    for ranks in found:
        back = ranks["read back"]
        assert back["equal"] and back["shared"] and back["tensors"] > 3 * len(gpt().state_dict())
        assert 0.4 * back["whole"] < back["read"] < 0.6 * back["whole"]
    assert sum(ranks["read back"]["read"] for ranks in found) == found[0]["read back"]["whole"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_is_not_finite_in_one_process_stops_both_before_the_weights(strategy, found):
    for ranks in found:
        step, error = ranks[f"{strategy} spoiled"]
        assert error.startswith(f"the loss is not finite at step {step + 1} ")
    assert found[0][f"{strategy} spoiled"][0] == found[1][f"{strategy} spoiled"][0]


def test_shards_refuse_a_task_that_differentiates_before_the_run(found):
    for ranks in found:
        assert (
            "Penalised differentiates inside its objectives"
            in (ranks["Sharded differentiates plain"])
        )


def test_flags_counts_and_first_weights_are_those_of_all(found):
    torch.manual_seed(0)
    first = torch.nn.Linear(6, 3).weight.detach()
    for rank, ranks in enumerate(found):
        assert ranks["any"].item() == 1.0
        assert [float(value) for value in ranks["total"]] == [4.0, 7.0]
        assert ranks["main"] == (rank == 0)
        assert torch.equal(ranks["wrapped"], first)
    assert [ranks["Replicated ordinary plain"]["ranks"] for ranks in found] == [2, 0]


def test_one_process_shares_nothing():
    strategy, flag = OneProcess(), torch.tensor(1.0)
    assert strategy.total(3, flag) == [3, flag]
    assert strategy.gather("mine") == ["mine"]
    assert (strategy.is_main, strategy.world, strategy.scale) == (True, 1, 1)
    strategy.any(flag)
    assert flag.item() == 1.0


def test_an_optimizer_of_other_parameters_is_refused():
    task = Classification(mlp(), num_classes=3)
    trainer = trainer_of(OneProcess(), task, Part(None))
    trainer.fit()
    assert not torch.equal(weights(task.model), weights(mlp()))
    other = torch.optim.SGD(mlp().parameters(), lr=0.1)
    with pytest.raises(ValueError, match="parameters that the network does not have"):
        type(trainer)(task, Part(None), other)
