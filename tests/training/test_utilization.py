import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.training.tiny import Rows, trainer_of
from zoo.models.transformer.gpt import gpt2, gpt_char
from zoo.training.curve import TrainingCurve
from zoo.training.utilization import items_at_peak, peak_flops

CUDA, HALF = torch.device("cuda"), torch.bfloat16


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989.5e12),
        ("NVIDIA H100 PCIe", 756.5e12),
        ("NVIDIA H200", 989.5e12),
        ("NVIDIA H200 NVL", 835.5e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("NVIDIA GeForce RTX 3060", None),
    ],
)
def test_peaks_are_those_of_the_device(name, peak):
    assert peak_flops(name, torch.bfloat16) == peak_flops(name, torch.float16) == peak
    assert peak_flops(name, None) is None  # float32: as TF32 or not


def test_the_operations_of_gpt2_are_the_formulas():
    with torch.device("meta"):
        model = gpt2(50304)
    layer = 4 * 768 * 768 + 8 * 768 * 768 + 4 * 768 + 9 * 768  # matrices, norms, biases
    parameters = 50304 * 768 + 12 * layer + 2 * 768
    assert sum(p.numel() for p in model.parameters()) - 1024 * 768 == parameters == 123_689_472
    assert model.flops_per_item() == 6 * parameters + 12 * 12 * 12 * 64 * 1024


@pytest.mark.parity
def test_the_formula_agrees_with_torchs_counter_of_matrix_products():
    model, tokens = gpt_char(65, sequence_length=64), torch.randint(65, (2, 64))
    counter = FlopCounterMode(display=False)
    with sdpa_kernel(SDPBackend.MATH), counter:  # The fused kernel of a CPU is not counted.
        model(tokens).square().sum().backward()
    # The counter leaves out biases and norms, which hardly count.
    assert counter.get_total_flops() / tokens.numel() == pytest.approx(
        model.flops_per_item(), rel=0.01
    )


def test_the_peak_rate_is_that_of_all_devices_for_a_model_that_knows_its_operations(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3")
    model = gpt_char(65)
    rate = items_at_peak(model, CUDA, HALF, world=2)
    assert rate == 2 * 989.5e12 / model.flops_per_item()
    assert items_at_peak(nn.Linear(2, 2), CUDA, HALF) is None
    assert items_at_peak(model, torch.device("cpu"), HALF) is None
    assert items_at_peak(model, CUDA, None) is None
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "something new")
    assert items_at_peak(model, CUDA, HALF) is None


def test_the_curve_has_the_share_of_the_peak_where_it_is_known():
    curve = TrainingCurve(["model"], torch.device("cpu"), items_at_peak=1e6)
    curve.add("model", torch.tensor(1.0), 5000)
    row = curve.read({"model": {"": 0.1}}, {}, {})
    assert row["mfu"] == pytest.approx(row["samples_per_second"] / 1e6)
    rows = Rows()
    trainer_of(steps=1, epochs=None).fit(callbacks=[rows])
    assert "mfu" not in rows.of("train")[0]
