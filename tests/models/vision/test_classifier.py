"""``reset_classifier`` and ``forward_features`` of every network for images."""

import pytest
import torch

from tests.models.vision.networks import NETWORKS

each = pytest.mark.parametrize("name", NETWORKS)


def built(name):
    torch.manual_seed(0)
    return NETWORKS[name].build(num_classes=5).eval()


@each
def test_reset_classifier_gives_other_classes_and_leaves_the_features(name):
    model, x = built(name).double(), torch.rand(2, *NETWORKS[name].shape).double()
    with torch.no_grad():
        features, before = model.forward_features(x), model.state_dict(keep_vars=True)
        model.reset_classifier(7)
        assert model(x).shape[1] == 7
        torch.testing.assert_close(model.forward_features(x), features, rtol=0, atol=0)
    after = model.state_dict(keep_vars=True)
    assert list(after) == list(before)
    fresh = [n for n in after if after[n] is not before[n]]
    assert fresh and all(7 in after[n].shape and 5 in before[n].shape for n in fresh)
    assert all(after[n].dtype == torch.float64 for n in fresh)


@each
def test_reset_classifier_starts_as_a_network_of_as_many_classes_does(name):
    model, other = built(name), NETWORKS[name].build(num_classes=7)
    before = set(map(id, model.state_dict(keep_vars=True).values()))
    model.reset_classifier(7)
    for key, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) in before:
            continue
        theirs = other.state_dict()[key]
        if theirs.std() == 0 or key == "output.codes":
            assert torch.equal(tensor, theirs), key
        else:  # Drawn from the same distribution: of 7 classes, if no more, to some accuracy.
            bound = 0.2 if tensor.numel() > 100 else 0.8
            torch.testing.assert_close(tensor.std(), theirs.std(), rtol=bound, atol=0)


@each
def test_reset_classifier_refuses_no_classes_and_works_without_memory(name):
    with torch.device("meta"):
        model = NETWORKS[name].build(num_classes=5)
    model.reset_classifier(7)
    assert all(tensor.is_meta for tensor in model.state_dict().values())
    with pytest.raises(ValueError, match="num_classes must be"):
        model.reset_classifier(0)
