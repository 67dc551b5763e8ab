import numpy as np
import pytest
import torch

from zoo.models.graph.label_propagation import LabelPropagation

# Two triangles 0-1-2 and 3-4-5 with one edge between.
EDGES = torch.tensor([[0, 1, 2, 3, 4, 5, 2], [1, 2, 0, 4, 5, 3, 3]])
EDGES = torch.cat([EDGES, EDGES.flip(0)], dim=1)
LABELS, KNOWN = torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor([1, 0, 0, 0, 0, 1]).bool()


@pytest.mark.parametrize("is_weighted", [False, True])
def test_many_steps_equal_scikit_learns_label_spreading(is_weighted):
    from sklearn.semi_supervised import LabelSpreading

    torch.manual_seed(0)
    weights = (torch.rand(7) + 0.1).repeat(2) if is_weighted else torch.ones(14)
    affinity = torch.zeros(6, 6, dtype=torch.double)
    affinity[EDGES[1], EDGES[0]] = weights.double()
    theirs = LabelSpreading(kernel=lambda *_: affinity.numpy(), alpha=0.8, tol=1e-9, max_iter=9999)
    theirs.fit(np.zeros((6, 1)), np.where(KNOWN, LABELS, -1))
    y = torch.nn.functional.one_hot(LABELS).double()
    scores = LabelPropagation(500, 0.8)(y, EDGES, KNOWN, weights if is_weighted else None)
    expected = torch.from_numpy(theirs.label_distributions_)
    torch.testing.assert_close(scores / scores.sum(1, keepdim=True), expected)


def test_one_label_a_community_labels_all():
    assert LabelPropagation(20, 0.9)(LABELS, EDGES, KNOWN).argmax(1).equal(LABELS)


def test_labels_that_are_not_known_do_not_matter():
    other = LABELS.where(KNOWN, 1 - LABELS)
    found = LabelPropagation(20, 0.9)(other, EDGES, KNOWN)
    assert torch.equal(found, LabelPropagation(20, 0.9)(LABELS, EDGES, KNOWN))


def test_arguments_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"alpha must be in \[0, 1\], not 2"):
        LabelPropagation(5, 2)
    with pytest.raises(ValueError, match="num_layers must be at least 1, not 0"):
        LabelPropagation(0, 0.5)
