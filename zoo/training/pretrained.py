"""Weights from elsewhere: of torchvision, timm or Hugging Face, or a checkpoint of a run.

Files are read as plain data (`weights_only=True`, or safetensors) and never unpickled. Every name
must agree with the model's; what is missing or has another shape is refused with its names. A
parameter that the model has under several names (a head tied to an embedding) is wanted once.

What a model's class says of itself, where it does:

- ``foreign_names``: pattern and replacement of names in published files that differ from its own,
  tried one after the other, and only for a name that the model does not have;
- ``reset_classifier(num_classes)``: what this changes stays as it was initialised, where the file
  knows another number of classes;
- ``optional_weights``: patterns of the names of layers that stay as they were initialised where
  the file does not have them, such as those that an FCN adds to a classifier.
"""

import copy
import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from zoo.training.checkpoint import CheckpointError, read
from zoo.training.state import usable_weights

SHOWN = 3
"""Names that a report gives of each kind."""

_WRAPPERS = ("state_dict", "model", "model_state_dict")
_PREFIXES = ("module.", "_orig_mod.")  # of DistributedDataParallel and torch.compile


class ModelOptions(TypedDict, total=False):
    """What a configuration may say of any model, besides the arguments of its target."""

    weights: str | None


@dataclass(frozen=True)
class Loaded:
    """What was taken from a file; as text, one line.

    Attributes:
        file: the file.
        loaded: names of the tensors that were taken.
        fresh: names of those that stay as they were initialised.
        unused: names in the file that the model does not have.
    """

    file: Path
    loaded: tuple[str, ...]
    fresh: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        text = f"{self.file}: {len(self.loaded)} tensors loaded"
        if self.fresh:
            text += f"; fresh: {', '.join(self.fresh)}"
        if self.unused:
            text += f"; in the file and not in the model: {_listed(self.unused)}"
        return text


def load_pretrained(
    model: nn.Module, file: str | Path, *, num_classes: int | None = None
) -> Loaded:
    """Fills a model with the weights of a file.

    Args:
        model: whose parameters and buffers to fill, in place.
        file: `.pth`, `.pt` or `.safetensors`.
        num_classes: the number of classes of a classifier that has no ``reset_classifier``:
            tensors of as many rows stay fresh where the file's have another number.

    Returns:
        What was loaded and what was not.

    Raises:
        ValueError: the file cannot be read, or does not fit.
    """
    path = Path(file)
    own = {name: entry for name, entry in model.state_dict().items() if isinstance(entry, Tensor)}
    given = _folded(_renamed(_read(path), own, getattr(model, "foreign_names", ())), own)
    differing = [n for n, t in own.items() if n in given and given[n].shape != t.shape]
    if hasattr(model, "reset_classifier"):
        fresh = _classifier(model, differing, own, given)
    else:
        fresh = _rows(differing, own, given, num_classes)
    wrong = [
        f"{n} {list(given[n].shape)} there and {list(own[n].shape)} here"
        for n in differing
        if n not in fresh
    ]
    tied = _tied(model)
    torn = [n for n in tied if n in given and not all(_equal(given, n, m) for m in tied[n])]
    # Files of old versions of torch have no such counters, and nothing depends on them.
    absent = [
        n
        for n in own
        if not ({n, *tied.get(n, ())} & given.keys() or n.endswith("num_batches_tracked"))
    ]
    optional = getattr(model, "optional_weights", ())
    new = [n for n in absent if any(fnmatchcase(n, pattern) for pattern in optional)]
    missing = [n for n in absent if n not in new]
    unused = [n for n in given if n not in own]
    if wrong or missing or torn:
        kinds = {
            "missing": missing,
            "of another shape": wrong,
            "one tensor here and several there": torn,
            "unknown to the model": unused,
        }
        report = "; ".join(f"{what}: {_listed(names)}" for what, names in kinds.items() if names)
        raise ValueError(
            f"{file}: does not fit the model, whose names and shapes must agree ({report})"
        )
    loaded = [n for n in own if n in given and n not in fresh]
    with torch.no_grad():
        for name in loaded:
            own[name].copy_(given[name])
    return Loaded(path, tuple(loaded), (*fresh, *new), tuple(unused))


def _listed(names: Sequence[str]) -> str:
    return f"{len(names)} ({', '.join(names[:SHOWN])}{', ...' if len(names) > SHOWN else ''})"


def _tied(model: nn.Module) -> dict[str, list[str]]:
    """All names of each parameter that has several, under each of them."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return {name: group for group in names.values() if len(group) > 1 for name in group}


def _equal(given: Mapping[str, Tensor], name: str, other: str) -> bool:
    """Whether a file that has two names has one tensor under them."""
    return other not in given or torch.equal(given[name], given[other])


def _classifier(
    model: Any, differing: Sequence[str], own: Mapping[str, Tensor], given: Mapping[str, Tensor]
) -> list[str]:
    """The tensors that would fit if the model had as many classes as the file."""
    sizes = {
        there
        for name in differing
        for here, there in zip(own[name].shape, given[name].shape, strict=False)
        if here != there
    }
    if len(sizes) != 1:
        return []
    # A copy without memory, in which the classifier can be made anew.
    tensors = model.state_dict(keep_vars=True).values()
    model = copy.deepcopy(model, {id(t): torch.empty_like(t, device="meta") for t in tensors})
    model.reset_classifier(sizes.pop())
    as_there = model.state_dict()
    return [name for name in differing if as_there[name].shape == given[name].shape]


def _rows(
    differing: Sequence[str],
    own: Mapping[str, Tensor],
    given: Mapping[str, Tensor],
    num_classes: int | None,
) -> list[str]:
    """The tensors of one row a class, if the file has all of them with as many other rows."""
    rows = [
        name
        for name in differing
        if own[name].ndim
        and own[name].shape[1:] == given[name].shape[1:]
        and own[name].shape[0] == num_classes
    ]
    return rows if len({given[name].shape[0] for name in rows}) == 1 else []


def _renamed(
    given: Mapping[str, Tensor], own: Mapping[str, Tensor], foreign_names: Sequence[tuple[str, str]]
) -> dict[str, Tensor]:
    """The tensors under the model's names."""
    found = {}
    for name, tensor in given.items():
        new = name
        while new not in own and (prefix := next(filter(new.startswith, _PREFIXES), None)):
            new = new.removeprefix(prefix)
        plain = new
        for pattern, replacement in foreign_names:
            if new not in own:
                new = re.sub(pattern, replacement, new)
        found[new if new in own else plain] = tensor
    return found


def _folded(given: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, matrices of fully-connected layers as the kernels that do the same."""
    folded = dict(given)
    for name, tensor in given.items():
        kernel = own.get(name)
        if kernel is None or (tensor.ndim, kernel.ndim) != (2, 4):
            continue
        if len(tensor) == len(kernel) and tensor.numel() == kernel.numel():
            folded[name] = tensor.view(kernel.shape)
    return folded


def _read(path: Path) -> dict[str, Tensor]:
    """The state dict in a file."""
    if path.is_dir():
        raise ValueError(f"{path}: is a folder; name a file, such as checkpoints/best.pt")
    try:
        content = _safetensors(path) if path.suffix == ".safetensors" else _plain(path)
    except FileNotFoundError:
        raise ValueError(f"{path}: there is no such file") from None
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{path}: is not a plain state dict and is not loaded ({reason})"
        ) from error
    except (ValueError, CheckpointError):
        raise
    except Exception as error:  # A damaged file makes its readers raise almost anything.
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path}: cannot be read ({reason})") from error
    tensors = isinstance(content, Mapping) and {
        name: entry
        for name, entry in content.items()
        if isinstance(name, str) and isinstance(entry, Tensor)
    }
    if not tensors:
        raise ValueError(f"{path}: holds no state dict (names to tensors)")
    return tensors


def _plain(path: Path) -> Any:
    content = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(content, dict):
        return None
    if isinstance(content.get("format"), int) and "position" in content:
        return usable_weights(read(path))  # A checkpoint of a run, whatever its version.
    for name in _WRAPPERS:
        if isinstance(content.get(name), dict):
            return content[name]
    return content


def _safetensors(path: Path) -> Any:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise ValueError(
            f"{path}: needs the package safetensors (pip install safetensors)"
        ) from error
    return load_file(path)
