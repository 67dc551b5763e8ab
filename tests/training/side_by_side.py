"""One optimizer of two parts against torch's own two."""

import torch


class Both:
    """Takes the steps of several optimizers."""

    def __init__(self, parts):
        self.parts = parts

    def step(self):
        for part in self.parts:
            part.step()


def assert_same_steps(train, ours, optimizer, theirs, parts):
    """Trains two equal networks, one by the optimizer, one by its parts; they stay equal."""
    train(ours, optimizer)
    train(theirs, Both(parts))
    for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, other), name
