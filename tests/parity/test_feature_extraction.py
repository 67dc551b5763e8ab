"""torchvision's feature extraction finds its way through every network for images."""

import pytest
import torch

from tests.models.vision.networks import NETWORKS

pytestmark = pytest.mark.parity
extraction = pytest.importorskip(
    "torchvision.models.feature_extraction", reason="needs torchvision"
)

# It traces networks in training, too, where these choose anew for each batch what they compute.
RANDOM = {"fractalnet": {"drop_path": False}}


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_a_middle_layer_can_be_taken_out(name):
    torch.manual_seed(0)
    model = NETWORKS[name].build(num_classes=5, **RANDOM.get(name, {})).eval()
    x = torch.rand(3, *NETWORKS[name].shape)
    _, nodes = extraction.get_graph_node_names(model)
    wanted = [nodes[len(nodes) // 2], nodes[-1]]
    taken = extraction.create_feature_extractor(
        model, train_return_nodes=nodes[:1], eval_return_nodes=wanted
    ).eval()(x)
    assert list(taken) == wanted
    assert torch.equal(taken[nodes[-1]], model(x))
