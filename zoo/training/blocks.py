"""What a network repeats: the layers of a Transformer, the levels of a U-Net."""

from torch import nn

_LISTS = (nn.ModuleList, nn.Sequential)


def lists_of_blocks(network: nn.Module) -> list[list[nn.Module]]:
    """The lists of blocks in a network, none of them within a block of another.

    Blocks are the members of a `ModuleList` or `Sequential` that are several of one class and have
    layers of their own: those of one list differ in their sizes at most.

    Args:
        network: where to look.
    """
    members = list(network.children())
    kinds = {type(member) for member in members}
    if isinstance(network, _LISTS) and len(members) > 1 and len(kinds) == 1:
        has_layers = all(any(True for _ in member.children()) for member in members)
        if has_layers and not isinstance(members[0], _LISTS):
            return [members]
    return [blocks for member in members for blocks in lists_of_blocks(member)]


def are_alike(blocks: list[nn.Module]) -> bool:
    """Whether what is computed in one block is computed in each: their tensors have equal sizes."""
    first, *others = ({n: t.shape for n, t in b.state_dict().items()} for b in blocks)
    return all(other == first for other in others)
