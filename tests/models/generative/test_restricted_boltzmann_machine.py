import itertools

import numpy as np
import pytest
import torch
from sklearn.neural_network import BernoulliRBM

from zoo.models.generative.restricted_boltzmann_machine import (
    RestrictedBoltzmannMachine,
    draw_binary,
)


def machine(image_size=3, hidden_size=4, scale=1.0, seed=0):
    torch.manual_seed(seed)
    model = RestrictedBoltzmannMachine(image_size, hidden_size=hidden_size).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=scale)
    return model


def states(units):
    return torch.tensor(list(itertools.product((0.0, 1.0), repeat=units)), dtype=torch.double)


def joint(model):
    """Minus the energy of every pair of states, written out: ``(visible, hidden)``."""
    visible, hidden = states(model.visible_size), states(model.hidden_size)
    linear = (visible @ model.visible_bias)[:, None] + (hidden @ model.hidden_bias)[None]
    return linear + visible @ model.weight.T @ hidden.T


def sklearns(model):
    theirs = BernoulliRBM(n_components=model.hidden_size, random_state=0)
    theirs.components_ = model.weight.detach().numpy()
    theirs.intercept_hidden_ = model.hidden_bias.detach().numpy()
    theirs.intercept_visible_ = model.visible_bias.detach().numpy()
    return theirs


@pytest.mark.parametrize(
    ("size", "hidden", "count"), [(28, 20, 16_484), (28, 500, 393_284), (8, 256, 16_704)]
)
def test_parameter_counts_are_the_docstrings(size, hidden, count):
    with torch.device("meta"):
        model = RestrictedBoltzmannMachine(size, hidden_size=hidden)
    assert sum(p.numel() for p in model.parameters()) == count


def test_free_energy_and_hidden_means_are_scikit_learns():
    model = machine(8, 32)
    visible = (torch.rand(50, 1, 8, 8) < 0.4).double()
    theirs, flat = sklearns(model), visible.flatten(1).numpy()
    np.testing.assert_allclose(model(visible).detach(), theirs._free_energy(flat), rtol=1e-9)
    means = model.hidden_means(visible).detach()
    np.testing.assert_allclose(means, theirs._mean_hiddens(flat), atol=1e-9)
    np.testing.assert_allclose(means, theirs.transform(flat), atol=1e-9)


def test_free_energy_is_the_joint_summed_over_hidden_states():
    model = machine()
    free_energy = model(states(9))
    torch.testing.assert_close(-free_energy, joint(model).logsumexp(1))


@pytest.mark.parametrize(("size", "hidden"), [(3, 4), (3, 9), (2, 11), (3, 1)])
def test_log_partition_is_that_of_all_pairs_of_states(size, hidden):
    model = machine(size, hidden)
    log_partition = model.log_partition()
    assert log_partition.dtype == torch.float64
    torch.testing.assert_close(log_partition, joint(model).logsumexp((0, 1)))


def test_log_partition_of_twelve_units_is_that_of_all_states_of_the_other_layer():
    model = machine(4, 12)
    torch.testing.assert_close(model.log_partition(), (-model(states(16))).logsumexp(0))


def test_log_partition_is_exact_where_exponentials_overflow():
    model = machine(3, 4, scale=400.0)
    torch.testing.assert_close(model.log_partition(), joint(model).logsumexp((0, 1)))


def test_too_many_states_are_refused_with_their_number():
    with pytest.raises(ValueError, match=r"at most 24 units .* not 25"):
        RestrictedBoltzmannMachine(5, hidden_size=30).log_partition()


def test_gibbs_chains_keep_the_machines_distribution():
    torch.manual_seed(0)
    model = machine(2, 3)
    exact = joint(model).logsumexp(1).softmax(0)
    start = states(4)[torch.multinomial(exact, 100_000, replacement=True)]
    end = model.gibbs(start, steps=2)
    numbers = (end @ torch.tensor([8.0, 4.0, 2.0, 1.0], dtype=torch.double)).long()
    shares = torch.bincount(numbers, minlength=16) / len(end)
    torch.testing.assert_close(shares.double(), exact.detach(), atol=0.006, rtol=0)
    assert not torch.equal(start, end)


def test_gibbs_chains_from_anywhere_come_to_the_machines_distribution():
    torch.manual_seed(0)
    model = machine(2, 3)
    exact = joint(model).logsumexp(1).softmax(0)
    end = model.gibbs(torch.zeros(50_000, 4, dtype=torch.double), steps=60)
    numbers = (end @ torch.tensor([8.0, 4.0, 2.0, 1.0], dtype=torch.double)).long()
    shares = torch.bincount(numbers, minlength=16) / len(end)
    torch.testing.assert_close(shares.double(), exact.detach(), atol=0.012, rtol=0)


@pytest.mark.parametrize("base", [None, "data"])
@pytest.mark.parametrize("seed", range(3))
def test_annealed_estimate_is_within_its_error_of_the_exact_value(seed, base):
    model = machine(6, 10, scale=0.7, seed=seed)
    torch.manual_seed(seed)
    exact = model.log_partition()
    base_bias = None if base is None else torch.randn(36)
    estimate = model.annealed_log_partition(base_bias=base_bias, chains=200, steps=400)
    assert 0 < estimate.standard_error < 0.2
    assert abs(estimate.log_partition - exact) < 4 * estimate.standard_error


def test_annealing_errs_by_little_already_with_one_step_from_the_machine_itself():
    """Without weights the base is the machine, and every importance weight is 1."""
    model = machine()
    with torch.no_grad():
        model.weight.zero_()
        model.hidden_bias.zero_()
    estimate = model.annealed_log_partition(chains=5, steps=3)
    torch.testing.assert_close(estimate.log_partition, model.log_partition())
    assert estimate.standard_error < 1e-12


def test_draws_are_those_of_the_generator_alone():
    means = torch.full((1000,), 0.3)
    draws = [draw_binary(means, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert draws[0].mean() == pytest.approx(0.3, abs=0.05)
