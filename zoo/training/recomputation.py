"""Activation checkpointing: less memory for one more forward pass.

Chen et al., 2016, "Training Deep Nets with Sublinear Memory Cost",
https://arxiv.org/abs/1604.06174: between the forward and the backward pass only what goes into each
block is kept, and what happens within is computed again when its gradient is due. Gradients are the
same to the last bit: dropout draws what it has drawn before.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from zoo.training.blocks import lists_of_blocks


def recompute_blocks(network: nn.Module) -> int:
    """Has every block that a network repeats computed again in the backward pass, in place.

    A block that keeps something of each batch (the statistics of batch normalisation) stays as it
    is, since the second pass would count the batch twice.

    Args:
        network: whose blocks; the names of its parameters stay what they are.

    Returns:
        How many blocks.
    """
    blocks = {id(b): b for found in lists_of_blocks(network) for b in found if not _keeps(b)}
    for block in blocks.values():
        if "forward" not in vars(block):  # Else another trainer has been here.
            block.forward = partial(_recomputed, block.forward)
    return len(blocks)


def _keeps(block: nn.Module) -> bool:
    return len(block.state_dict()) > len(dict(block.named_parameters(remove_duplicate=False)))


def _recomputed(forward: Callable[..., Any], *inputs: Any, **options: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*inputs, **options)
    return checkpoint(forward, *inputs, use_reentrant=False, **options)
