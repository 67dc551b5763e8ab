"""How much memory there is to keep data in."""

import torch


def available_memory(device: torch.device) -> int:
    """Free memory of a device in bytes; without limit where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo") as file:
            fields = dict(line.split(":") for line in file)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 2**63 - 1
