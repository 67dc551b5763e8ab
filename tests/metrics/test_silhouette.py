import pytest
import torch
from sklearn.metrics import silhouette_score

from zoo.metrics.silhouette import silhouette


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_silhouette_is_scikit_learns(classes):
    generator = torch.Generator().manual_seed(classes)
    labels = torch.randint(classes, (50,), generator=generator)
    vectors = torch.randn(50, 4, generator=generator) + labels.unsqueeze(1)
    theirs = silhouette_score(vectors.double(), labels, metric="cosine")
    assert silhouette(vectors, labels).item() == pytest.approx(theirs, abs=1e-9)


def test_a_class_of_one_counts_as_nothing_and_a_number_may_be_unused():
    vectors = torch.tensor([[1.0, 0.1], [1.0, 0.0], [0.1, 1.0], [-1.0, 0.3]])
    labels = torch.tensor([0, 0, 3, 5])
    theirs = silhouette_score(vectors.double(), labels, metric="cosine")
    assert silhouette(vectors, labels).item() == pytest.approx(theirs, abs=1e-9)


def test_classes_far_apart_have_one_and_equal_vectors_nothing():
    far = torch.tensor([[1.0, 0], [2.0, 0], [0, 1.0], [0, 3.0]])
    assert silhouette(far, torch.tensor([0, 0, 1, 1])).item() == 1
    assert silhouette(torch.ones(4, 3), torch.tensor([0, 0, 1, 1])).item() == 0


def test_lengths_do_not_count_and_no_gradient_is_kept():
    vectors = torch.randn(20, 3, requires_grad=True)
    labels = torch.arange(20) % 3
    scaled = vectors * torch.rand(20, 1).add(0.1)
    found = silhouette(vectors, labels)
    assert not found.requires_grad
    torch.testing.assert_close(found, silhouette(scaled, labels), atol=1e-5, rtol=0)
