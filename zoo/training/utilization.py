"""How much of a device's arithmetic a run makes use of: model FLOPs utilization (MFU).

Chowdhery et al., 2022 (PaLM), appendix B, https://arxiv.org/abs/2204.02311: the items a second that
a run gets through, over those that it would at the device's peak if it did nothing but the
operations of the model itself. What is computed again to save memory does not count. A model that
knows its operations says them in ``flops_per_item()``: of forward and backward pass, for one of
what the loss is a mean over.

Peaks are for dense matrices in bfloat16 or float16, in operations a second, from NVIDIA's data
sheets (which print twice as much, "with sparsity", for all but the A100):

- A100: https://www.nvidia.com/content/dam/en-zz/Solutions/Data-Center/a100/pdf/nvidia-a100-datasheet-us-nvidia-1758950-r4-web.pdf
- H100: https://resources.nvidia.com/en-us-tensor-core/nvidia-tensor-core-gpu-datasheet
- H200: https://www.nvidia.com/en-us/data-center/h200/
"""

import torch
from torch import nn

PEAKS = {
    "H200 NVL": 835.5e12,
    "H200": 989.5e12,
    "H100 NVL": 835.5e12,
    "H100 PCIe": 756.5e12,
    "H100": 989.5e12,
    "A100": 312e12,
}
"""By what is in a device's name; the first that fits counts."""


def peak_flops(name: str, dtype: torch.dtype | None) -> float | None:
    """The operations a second of a device at its peak; None if they are not known.

    Args:
        name: of the device, as `torch.cuda.get_device_name` says it.
        dtype: of matrix products; None for float32, whose peak depends on settings.
    """
    if dtype not in (torch.bfloat16, torch.float16) or "MIG" in name:  # a part of a device
        return None
    return next((peak for part, peak in PEAKS.items() if part in name), None)


def items_at_peak(
    model: nn.Module, device: torch.device, dtype: torch.dtype | None, *, world: int = 1
) -> float | None:
    """Items a second of a model at the peak of its devices; None if that is not known.

    Args:
        model: with ``flops_per_item()``, or without.
        device: where it is.
        dtype: of its matrix products.
        world: how many such devices work on it.
    """
    count = getattr(model, "flops_per_item", None)
    if count is None or device.type != "cuda":
        return None
    peak = peak_flops(torch.cuda.get_device_name(device), dtype)
    return None if peak is None else world * peak / count()
