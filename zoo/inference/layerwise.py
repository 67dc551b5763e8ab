"""What a network says of every node of a graph too large to be seen at once, layer by layer."""

from typing import Protocol

import torch
from torch import Tensor, nn

from zoo.layers.message_passing import Edges


class Layered(Protocol):
    """A network on a graph whose layers can be applied one at a time."""

    convs: nn.ModuleList

    def apply_layer(self, layer: int, x: tuple[Tensor, Tensor], edges: Edges) -> Tensor:
        """One of ``convs`` with what stands between it and the one before.

        Args:
            layer: its number.
            x: features of the sources and of the targets.
            edges: from these to those.
        """
        ...


@torch.no_grad()
def layerwise(
    model: Layered, features: Tensor, starts: Tensor, sources: Tensor, *, chunk: int = 16_384
) -> Tensor:
    """The outputs of a network for all nodes, with all their neighbours.

    A layer is computed for all nodes before the next begins, for ``chunk`` of them at a time: every
    node is computed once a layer, and what is in memory are the outputs of two layers and the
    inputs of one chunk.

    Args:
        model: the network, in evaluation mode.
        features: of the nodes, ``(nodes, in_features)``; may be memory-mapped.
        starts: where the edges into each node start and the last ones end, ``(nodes + 1,)``.
        sources: where each edge comes from, sorted by target, ``(edges,)``.
        chunk: nodes at a time.

    Shape:
        - output: ``(nodes, out_features)``
    """
    x = features
    for layer in range(len(model.convs)):
        outputs: list[Tensor] = []
        for begin in range(0, len(x), chunk):
            end = min(begin + chunk, len(x))
            bounds = starts[begin : end + 1]
            own = sources[bounds[0] : bounds[-1]]
            needed, source = own.unique(return_inverse=True)
            rows = torch.arange(end - begin, device=source.device)
            target = rows.repeat_interleave(bounds.diff(), output_size=len(own))
            edges = Edges(torch.stack([source, target]), end - begin, len(needed))
            outputs.append(model.apply_layer(layer, (x[needed], x[begin:end]), edges))
        x = torch.cat(outputs)
    return x
