import pytest
import torch
from torch import nn

from zoo.tasks.task import Task


class Two(Task):
    def __init__(self):
        super().__init__(nn.ModuleDict({n: nn.Linear(1, 1) for n in ("a", "b", "neither")}))
        self.model["a"].bias.requires_grad_(False)  # frozen

    def networks(self):
        return {"a": self.model["a"], "b": self.model["b"]}

    def wanted(self):
        return {name for name, p in self.model.named_parameters() if p.requires_grad}


ALL = {"a.weight", "b.weight", "b.bias", "neither.weight", "neither.bias"}


def test_only_the_announced_network_wants_gradients_until_the_turn_ends():
    task = Two()
    with task.turn("b"):
        assert task.wanted() == {"b.weight", "b.bias"}
        loss = task.model["b"](task.model["a"](torch.ones(1, 1))).sum()
    assert task.announced == "b"
    assert task.wanted() == {"b.weight", "b.bias"}  # until the update
    loss.backward()
    task.end_turn()
    assert task.wanted() == ALL  # what is frozen stays so
    assert task.announced is None
    assert task.model["a"].weight.grad is None
    assert task.model["b"].weight.grad is not None


def test_a_loss_passes_through_the_networks_that_wait():
    task = Two()
    with task.turn("a"):
        task.model["b"](task.model["a"](torch.ones(1, 1))).sum().backward()
    assert task.model["a"].weight.grad is not None
    assert task.model["b"].weight.grad is None


def test_a_turn_that_is_announced_again_goes_on_and_another_takes_over():
    task = Two()
    with task.turn("a"):
        pass
    with task.turn("a"):
        assert task.wanted() == {"a.weight"}
    with task.turn("b"):
        assert task.wanted() == {"b.weight", "b.bias"}
    task.end_turn()
    assert task.wanted() == ALL


def test_a_turn_that_fails_is_over():
    task = Two()
    with pytest.raises(ZeroDivisionError), task.turn("a"):
        raise ZeroDivisionError
    assert (task.wanted(), task.announced) == (ALL, None)


def test_a_turn_of_no_network_is_refused_by_name():
    with pytest.raises(ValueError, match="no network 'c', only a, b"), Two().turn("c"):
        pass


def test_a_parameter_that_two_networks_share_takes_part_in_both_turns():
    task = Two()
    task.model["b"].weight = task.model["a"].weight
    with task.turn("a"):
        assert task.model["b"].weight.requires_grad
