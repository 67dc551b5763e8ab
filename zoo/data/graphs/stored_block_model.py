"""A large graph whose classes can be told from its edges, made from a seed and kept on the disk.

P. W. Holland, K. B. Laskey and S. Leinhardt, "Stochastic blockmodels: first steps", 1983,
https://doi.org/10.1016/0378-8733(83)90021-7
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from zoo.data.files import whole_file
from zoo.data.graphs.batches import GraphLoader, StoredGraph, undirected
from zoo.data.graphs.neighbours import IncomingEdges, NeighbourLoader
from zoo.data.module import DataModule, Part, check_batch_size
from zoo.data.sampling import seeded_generator

CHUNK = 50_000  # nodes whose features are drawn at a time
_FILES = ("starts", "sources", "features", "labels")


class StoredBlockModel(DataModule):
    r"""Nodes of several classes, linked mostly within their own, with noisy features.

    Each link joins a random node to one of its own class with probability ``within``, else to any
    node. A node's features are its class's mean, a random direction of length ``signal``, and
    standard normal noise: alone they tell little, and averaged over neighbours much. Everything is
    a function of ``data_seed`` and the sizes.

    The graph lies in ``root/block_model/<its number>/`` as NumPy files, which are memory-mapped:
    only what a batch needs is read. A training batch is of ``batch_size`` nodes and a sample of
    their neighbourhood (:class:`~zoo.data.graphs.neighbours.NeighbourLoader`); an evaluation is
    of the whole graph.

    Args:
        num_nodes: number of nodes.
        num_links: number of links; each is two edges, one in either direction.
        num_classes: number of classes.
        in_features: features of a node.
        within: share of the links that are surely within a class.
        signal: length of a class's mean, where the noise has deviation 1 in each direction.
        train_size: nodes to train on.
        val_size: nodes of val.
        test_size: nodes of the test.
        fan_out: the most edges into a node in each layer, from the last layer backwards.
        batch_size: nodes a training batch.
        root: folder of all data.
        data_seed: another seed, another graph.

    Raises:
        ValueError: an argument is outside its range.
    """

    splits = ("train", "val", "test")
    changeable = ("root",)

    def __init__(
        self,
        *,
        num_nodes: int = 1_000_000,
        num_links: int = 5_000_000,
        num_classes: int = 10,
        in_features: int = 128,
        within: float = 0.8,
        signal: float = 1.0,
        train_size: int = 50_000,
        val_size: int = 10_000,
        test_size: int = 50_000,
        fan_out: tuple[int | None, ...] = (10, 10),
        batch_size: int = 1024,
        root: str = "data",
        data_seed: int = 0,
    ) -> None:
        super().__init__()
        check_batch_size(batch_size)
        sizes = {
            "num_nodes": num_nodes,
            "num_links": num_links,
            "num_classes": num_classes,
            "in_features": in_features,
        }
        self.counts = {"train": train_size, "val": val_size, "test": test_size}
        for name, size in (sizes | {f"{k}_size": v for k, v in self.counts.items()}).items():
            if size < 1:
                raise ValueError(f"{name} must be at least 1, not {size}")
        if num_classes > num_nodes:
            raise ValueError(f"num_classes must be at most num_nodes={num_nodes}")
        if sum(self.counts.values()) > num_nodes:
            raise ValueError(
                f"train_size, val_size and test_size must be at most num_nodes={num_nodes} "
                f"together, not {sum(self.counts.values())}"
            )
        if not 0 <= within <= 1:
            raise ValueError(f"within must be from 0 to 1, not {within}")
        if signal < 0:
            raise ValueError(f"signal must be at least 0, not {signal}")
        self.recipe: dict[str, Any] = {
            **sizes,
            "within": float(within),
            "signal": float(signal),
            "data_seed": data_seed,
        }
        self.fan_out, self.batch_size, self.root = tuple(fan_out), batch_size, root

    def setup(
        self, *, seed: int = 0, device: torch.device | str = "cpu", part: Part = (0, 1)
    ) -> None:
        folder = self._folder()
        # Private and writable, as torch wants memory to be; nothing is ever written.
        starts, sources, features, labels = (
            torch.from_numpy(np.load(folder / f"{name}.npy", mmap_mode="c")) for name in _FILES
        )
        generator = seeded_generator("split", self.recipe["data_seed"])
        order = torch.randperm(len(labels), generator=generator)
        sizes = list(self.counts.values())
        train, *others = order[: sum(sizes)].split(sizes)
        self.loaders = {
            "train": NeighbourLoader(
                features,
                IncomingEdges(starts, sources),
                labels,
                train,
                fan_out=self.fan_out,
                batch_size=self.batch_size,
                shuffle=True,
                seed=seed,
                device=device,
                part=part,
            )
        }
        for split, nodes in zip(("val", "test"), others, strict=True):
            mask = torch.zeros(len(labels), dtype=torch.bool)
            mask[nodes] = True
            graph = StoredGraph(features, starts, sources, labels, mask)
            self.loaders[split] = GraphLoader(graph, device=device, part=part)

    def facts(self) -> dict[str, Any]:
        return {
            **{name: self.recipe[name] for name in ("num_nodes", "in_features", "num_classes")},
            "class_names": None,
        }

    def _folder(self) -> Path:
        """Makes the files if they are not there, and returns their folder."""
        recipe = json.dumps(self.recipe, sort_keys=True)
        name = hashlib.sha256(recipe.encode()).hexdigest()[:16]
        folder = Path(self.root) / "block_model" / name
        last = folder / "recipe.json"
        if not last.exists():  # It is written when all others are there.
            folder.mkdir(parents=True, exist_ok=True)
            _write(folder, **self.recipe)
            with whole_file(last) as path:
                path.write_text(recipe + "\n", encoding="utf-8")
        return folder


def _write(
    folder: Path,
    *,
    num_nodes: int,
    num_links: int,
    num_classes: int,
    in_features: int,
    within: float,
    signal: float,
    data_seed: int,
) -> None:
    """Draws the graph and writes its files."""
    generator = seeded_generator("block model", data_seed)
    labels = torch.randint(num_classes, (num_nodes,), generator=generator)
    source = torch.randint(num_nodes, (num_links,), generator=generator)
    target = torch.randint(num_nodes, (num_links,), generator=generator)
    # The nodes of a class one after the other, to draw one of a class from.
    by_class = labels.argsort(stable=True)
    sizes = labels.bincount(minlength=num_classes)
    before = sizes.cumsum(0) - sizes
    own = labels[source]
    place = (torch.rand(num_links, generator=generator, dtype=torch.float64) * sizes[own]).long()
    is_within = torch.rand(num_links, generator=generator) < within
    target = torch.where(is_within, by_class[before[own] + place], target)
    edges = IncomingEdges.of(undirected(torch.stack([source, target]), num_nodes), num_nodes)
    small = {"starts": edges.starts, "sources": edges.sources.int(), "labels": labels}
    for name, values in small.items():
        with whole_file(folder / f"{name}.npy") as path, path.open("wb") as opened:
            np.save(opened, values.numpy())
    means = signal * F.normalize(torch.randn(num_classes, in_features, generator=generator))
    with whole_file(folder / "features.npy") as path:
        shape = num_nodes, in_features
        file = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
        for start in range(0, num_nodes, CHUNK):
            classes = labels[start : start + CHUNK]
            noise = torch.randn(len(classes), in_features, generator=generator)
            file[start : start + CHUNK] = (means[classes] + noise).numpy()
        file.flush()
