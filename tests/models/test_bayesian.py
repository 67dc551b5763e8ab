"""The networks of uncertain weights beside those of certain ones, at equal means."""

import torch

from zoo.models.bayesian import BayesianCNN, BayesianMLP
from zoo.models.mlp import MLP
from zoo.models.vision.lenet import lenet5


def with_means_of(bayesian, plain):
    """The network of certain weights with the means of the other."""
    means = {n.replace("_mean", ""): v for n, v in bayesian.state_dict().items() if "_mean" in n}
    plain.load_state_dict(means, strict=True)
    return plain.eval()


def test_means_are_a_multilayer_perceptron():
    model = BayesianMLP(12, 3, hidden_sizes=(8, 6), activation="tanh").eval()
    plain = with_means_of(model, MLP(12, 3, hidden_sizes=(8, 6), activation="tanh"))
    x = torch.randn(4, 12)
    assert torch.equal(model(x), plain(x))


def test_means_are_lenet():
    for size in (32, 28):
        model = BayesianCNN(10, image_size=size).eval()
        plain = with_means_of(model, lenet5(10, image_size=size))
        x = torch.randn(2, 1, size, size)
        assert torch.equal(model(x), plain(x))


def test_parameters_are_two_for_each_weight():
    counts = [sum(p.numel() for p in m.parameters()) for m in (BayesianMLP(784, 10), BayesianCNN())]
    assert counts == [956_820, 123_412]
