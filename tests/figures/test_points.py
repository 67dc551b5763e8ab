import torch

from tests.figures.test_grids import assert_shows
from zoo.figures.points import fit_image, nodes_image, scatter_image
from zoo.models.graph.gcn import GCN
from zoo.models.linear import LinearRegression
from zoo.tasks.node_classification import NodeClassification
from zoo.tasks.regression import MOST_POINTS, Regression


def test_predictions_are_drawn_against_true_values():
    targets = torch.randn(20, 2)
    assert_shows(fit_image(targets, targets + 0.1))
    assert_shows(fit_image(torch.ones(1), torch.ones(1)))


def test_nodes_are_drawn_in_the_plane_of_their_outputs():
    labels = torch.arange(12) % 3
    edges = torch.randint(12, (2, 30))
    assert_shows(nodes_image(torch.randn(12, 3), labels, edges))
    assert_shows(nodes_image(torch.randn(12, 1), labels, edges))


def test_vectors_of_nodes_are_no_wrong_answers():
    labels, edges = torch.arange(12) % 3, torch.empty(2, 0, dtype=torch.int64)
    right = torch.eye(3)[labels] + 0.1 * torch.rand(12, 3)
    for outputs, is_same in ((right, True), (-right, False)):
        drawn = nodes_image(outputs, labels, edges)
        vectors = nodes_image(outputs, labels, edges, is_classified=False)
        assert torch.equal(drawn, vectors) is is_same
    assert_shows(nodes_image(torch.randn(12, 8), labels, edges, is_classified=False))


def test_a_regression_shows_its_first_predictions_of_an_evaluation():
    task = Regression(LinearRegression(3, 1))
    assert task.show() == {}
    for _ in range(3):
        task.evaluate((torch.randn(MOST_POINTS // 2 + 1, 3), torch.randn(MOST_POINTS // 2 + 1)))
    assert sum(len(targets) for targets, _ in task._points) == MOST_POINTS
    assert_shows(task.show()["fit"].pixels)
    task.reset()
    assert task.show() == {}


def test_a_node_classification_shows_its_nodes():
    task = NodeClassification(GCN(4, 2, hidden_channels=8), num_classes=2)
    graph = (torch.randn(6, 4), torch.tensor([[0, 1, 2], [1, 2, 3]]), torch.arange(6) % 2)
    task.evaluate((*graph, torch.ones(6, dtype=torch.bool)))
    assert_shows(task.show()["nodes"].pixels)


def test_points_are_drawn_around_the_places_where_they_should_gather():
    centres = torch.tensor([[0.0, 1.0], [2.0, -1.0]])
    assert_shows(scatter_image(torch.randn(50, 2), centres))
    assert_shows(scatter_image(torch.full((1, 2), 1e6), centres[:1]))
