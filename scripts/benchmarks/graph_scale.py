"""Large graphs: what an edge costs from ten thousand to ten million, and sampled neighbourhoods."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.timing import interleave, ratio
from zoo.data.graphs.neighbours import IncomingEdges, NeighbourSampler
from zoo.layers.message_passing import Edges

SIZES = [10_000, 100_000, 1_000_000, 10_000_000]
DEGREE, WIDTH, REACH = 10, 8, 100
NODES, EDGES, SEEDS, FAN_OUT = 1_000_000, 10_000_000, 1_024, (10, 10)


def _passed(size: int) -> Callable[[], float]:
    """Seconds an edge, forward and backward; as many edges each time, in however many passes.

    Neighbours lie near one another, so that what is far from the caches is not what differs.
    """
    nodes = size // DEGREE
    source = torch.arange(nodes).repeat_interleave(DEGREE)
    target = (source + torch.randint(1, REACH, (size,))) % nodes
    edges = Edges(torch.stack([source, target]), nodes)
    x = torch.rand(nodes, WIDTH, requires_grad=True)
    passes = max(1, SIZES[-2] // size)

    def side() -> float:
        began = time.perf_counter()
        for _ in range(passes):
            out = edges.propagate(x)
            torch.autograd.grad(out, x, out.detach())
        return (time.perf_counter() - began) / (passes * size)

    return side


def messages(blocks: int) -> list[dict[str, Any]]:
    """What an edge costs in a graph against what it costs in the smallest."""
    torch.manual_seed(0)
    sides = {f"an edge of {size:,}": _passed(size) for size in SIZES}
    times = interleave(sides, blocks)
    smallest, *larger = times
    for name, seconds in times.items():
        print(f"{name}: {1e9 * min(seconds):.2f} ns, forward and backward at width {WIDTH}")
    return [ratio(times, name, smallest) for name in larger]


def _drawn_with_replacement(edges: IncomingEdges, seeds: Tensor) -> tuple[Tensor, Tensor]:
    """The usual few lines: so many draws a node with replacement, and `torch.unique`."""
    nodes = front = seeds
    sources, targets = [], []
    for most in FAN_OUT:
        first, degree = edges.starts[front], edges.starts[front + 1] - edges.starts[front]
        picks = torch.randint(2**31, (len(front), most)) % degree.clamp_min(1).unsqueeze(1)
        is_drawn = (degree > 0).unsqueeze(1).expand_as(picks)
        sources.append(edges.sources[(first.unsqueeze(1) + picks)[is_drawn]].long())
        targets.append(front.unsqueeze(1).expand_as(picks)[is_drawn])
        front = sources[-1].unique()
        nodes = torch.cat([nodes, front])
    nodes, numbers = torch.cat([nodes, *sources, *targets]).unique(return_inverse=True)
    count = sum(map(len, sources))
    return nodes, numbers[-2 * count :].view(2, count)


def sampling(blocks: int) -> list[dict[str, Any]]:
    """Our sampler (without replacement, seeds first) against those lines; a million nodes."""
    torch.manual_seed(0)
    edges = IncomingEdges.of(torch.randint(NODES, (2, EDGES)), NODES)
    edges = edges._replace(sources=edges.sources.int())
    sampler, generator = NeighbourSampler(edges, FAN_OUT), torch.Generator().manual_seed(0)

    def timed(sample: Callable[[Tensor], Any]) -> Callable[[], float]:
        def side() -> float:
            seeds = torch.randperm(NODES)[:SEEDS]
            began = time.perf_counter()
            sample(seeds)
            return time.perf_counter() - began

        return side

    sides = {
        "neighbours of 1,024 nodes, ours": timed(lambda seeds: sampler.sample(seeds, generator)),
        "neighbours of 1,024 nodes, randint and unique": timed(
            lambda seeds: _drawn_with_replacement(edges, seeds)
        ),
    }
    times = interleave(sides, blocks)
    for name, seconds in times.items():
        print(f"{name}: {SEEDS / min(seconds):,.0f} seed nodes a second")
    ours, theirs = sides
    return [ratio(times, ours, theirs)]
