import pytest
import torch
from torch import nn
from torch.nn import functional as F

from zoo.training.graphs.runners import CaptureError, CudaRunner, EagerRunner

CPU = torch.device("cpu")


def test_replays_follow_tensors_and_not_python():
    value, factor = torch.tensor([1.0, 2.0]), [10.0]
    runner = EagerRunner(CPU)
    result = runner.capture(lambda: {"sum": (value * factor[0]).sum()})
    assert result["sum"] == 30 and runner.replays == 1
    value.copy_(torch.tensor([3.0, 4.0]))
    factor[0] = 100.0  # A graph does not see it.
    runner.replay()
    assert result["sum"] == 70 and runner.replays == 2


def test_replays_draw_on_from_where_the_generator_stands():
    runner = EagerRunner(CPU)
    ones = torch.ones(20)
    result = runner.capture(lambda: F.dropout(ones, 0.5))
    torch.manual_seed(3)
    found = []
    for _ in range(3):
        runner.replay()
        found.append(result.clone())
    torch.manual_seed(3)
    assert all(torch.equal(a, F.dropout(ones, 0.5)) for a in found)
    assert not torch.equal(found[0], found[1])


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_a_captured_step_equals_a_loop_by_hand_bit_for_bit(kind):
    def made():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2))
        return model, kind(model.parameters(), lr=0.1, fused=True)

    def step(model, optimizer, batch):
        loss = model(batch).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    batches = torch.randn(6, 5, 1, 4, 4)
    by_hand = made()
    losses = [step(*by_hand, batch) for batch in batches]
    captured, static, runner = made(), batches[0].clone(), EagerRunner(CPU)
    found = [runner.warm_up(lambda: step(*captured, static))]
    static.copy_(batches[1])
    loss = runner.capture(lambda: step(*captured, static))
    found.append(loss.clone())
    for batch in batches[2:]:
        static.copy_(batch)
        runner.replay()
        found.append(loss.clone())
    assert found == losses and len(set(map(float, found))) == 6
    for ours, theirs in zip(captured[0].state_dict(), by_hand[0].state_dict(), strict=True):
        assert torch.equal(captured[0].state_dict()[ours], by_hand[0].state_dict()[theirs])


def test_nothing_is_replayed_after_the_release():
    runner = EagerRunner(CPU)
    runner.capture(lambda: torch.ones(2) * 2)
    runner.release()
    with pytest.raises(AssertionError, match="nothing was captured"):
        runner.replay()


def test_cuda_graphs_are_for_cuda():
    with pytest.raises(ValueError, match=r"needs a CUDA device.* on mps; leave"):
        CudaRunner(torch.device("mps"))


@pytest.mark.gpu
def test_replays_of_a_real_graph_follow_tensors_and_the_generator():
    device = torch.device("cuda")
    runner, value = CudaRunner(device), torch.ones(1000, device=device)

    def function():
        return value.sum(), F.dropout(value, 0.5)

    runner.warm_up(function)
    total, dropped = runner.capture(function)
    assert total.item() == 1000 and runner.replays == 1
    masks = []
    torch.cuda.manual_seed(3)
    for _ in range(2):
        value.add_(1)
        runner.replay()
        masks.append(dropped != 0)
    assert total.item() == 3000 and not torch.equal(*masks)
    torch.cuda.manual_seed(3)
    assert torch.equal(masks[0], F.dropout(value, 0.5) != 0)
    runner.release()


@pytest.mark.gpu
def test_what_cannot_be_captured_is_said_in_a_sentence():
    device = torch.device("cuda")
    value = torch.ones((), device=device)
    with pytest.raises(CaptureError, match=r"cannot be captured .* trainer\.cuda_graphs=false"):
        CudaRunner(device).capture(value.item)
