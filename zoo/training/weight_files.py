"""Files of weights, read as plain data: what is in them, or in one sentence what they are instead.

Nothing is ever unpickled: `torch.load` with `weights_only=True`, or safetensors. A file in several
parts is named by its index (`model.safetensors.index.json`) or by any of its parts.
"""

import json
import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.training.checkpoints.checkpoint import CheckpointError, read, refused_class
from zoo.training.state import usable_weights

_WRAPPERS = ("state_dict", "model", "model_state_dict", "module", "net", "network")
_AVERAGED = (*(f"{name}_ema" for name in _WRAPPERS), "ema", "ema_state_dict")
"""Entries that hold a state dict; averaged weights come first, as they do for runs of ours."""

_KINDS = (  # By how a file begins.
    (rb"version https://git-lfs", "is a pointer of Git LFS, not the file: fetch it (git lfs pull)"),
    (
        rb"(?i)\s*<(!doctype|html|\?xml|head|body|error)",
        "is a web page, not weights: the server answered with a page; download the file itself",
    ),
    (rb"\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf|Rar!", "is a compressed archive: unpack it first"),
    (rb"\x89HDF", "is a file of HDF5 (Keras), and not of PyTorch: convert it"),
    (rb"GGUF", "is a file of llama.cpp (GGUF), and not of PyTorch"),
    (rb"\x93NUMPY", "is an array of NumPy, and not a state dict"),
    (rb"$", "is empty"),
)
_PART = re.compile(r"^(.*)-\d{5}-of-\d{5}(\.\w+)$")


def read_weights(path: Path, entry: str | None = None) -> tuple[dict[str, Tensor], str]:
    """The state dict in a file.

    Args:
        path: the file, or the index of one in several parts.
        entry: what to take where a file holds several: the name of an entry (`state_dict_ema`), or
            what stands before the names of one of its models (`student`).

    Returns:
        Its tensors by name, and which entry was taken where there was a choice ("": none).

    Raises:
        ValueError: it cannot be read; the sentence says what it is.
    """
    if path.is_dir():
        raise ValueError(f"{path}: is a folder; name a file, such as checkpoints/best.pt")
    if not path.exists():
        raise ValueError(f"{path}: there is no such file")
    try:
        whole = _whole(path)
        chosen, note = _chosen(path, whole, entry)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path}: {_not_plain(error)}") from error
    except (ValueError, CheckpointError):
        raise
    except Exception as error:  # A damaged file makes its readers raise almost anything.
        if "TorchScript" in str(error):
            raise ValueError(
                f"{path}: is a program of TorchScript, and not a state dict"
            ) from error
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path}: cannot be read ({reason})") from error
    tensors = {
        name: tensor
        for name, tensor in chosen.items()
        if isinstance(name, str) and isinstance(tensor, Tensor)
    }
    if not tensors:
        raise ValueError(f"{path}: holds no state dict (names to tensors)")
    return tensors, note


def _not_plain(error: pickle.UnpicklingError) -> str:
    """Why a file is refused, with the class that it holds if it names one."""
    if found := refused_class(error):
        return (
            f"holds an object of {found} beside its tensors, and only plain data are loaded; "
            "where it comes from, save the weights alone: torch.save(model.state_dict(), file)"
        )
    return "is no file that torch.save has written, or is damaged"


def _whole(path: Path) -> Any:
    """All that a file holds, its other parts included."""
    with open(path, "rb") as file:
        head = file.read(256)
    for pattern, what in _KINDS:
        if re.match(pattern, head):
            raise ValueError(f"{path}: {what}")
    if path.name.endswith(".index.json"):
        return _parts(path)
    if match := _PART.match(path.name):
        index = path.with_name(f"{match[1]}{match[2]}.index.json")
        if not index.exists():
            raise ValueError(f"{path}: is one part of several, and {index.name} is not beside it")
        return _parts(index)
    return _reader(path)(path)


def _parts(index: Path) -> dict[str, Tensor]:
    """The tensors of all files that an index names, which lie beside it.

    Raises:
        ValueError: it is not an index, or a part is missing.
    """
    try:
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = sorted(set(names.values()))
        plain = all(isinstance(name, str) and Path(name).name == name for name in files)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{index}: is not the index of a file in parts") from error
    if not plain or not files:
        raise ValueError(f"{index}: must name files beside it, not {', '.join(map(str, files))}")
    if missing := [name for name in files if not index.with_name(name).exists()]:
        raise ValueError(f"{index}: {missing[0]} is not beside it ({len(missing)} of {len(files)})")
    found: dict[str, Tensor] = {}
    for name in files:
        found |= _reader(index.with_name(name))(index.with_name(name))
    return found


def _reader(path: Path) -> Callable[[Path], Any]:
    return _safetensors if path.suffix == ".safetensors" else _torch


def _torch(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def _safetensors(path: Path) -> Any:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise ValueError(
            f"{path}: needs the package safetensors (pip install safetensors)"
        ) from error
    return load_file(path)


def _chosen(path: Path, content: Any, entry: str | None) -> tuple[Mapping[str, Any], str]:
    """The state dict among what a file holds, and its name where there are several."""
    if not isinstance(content, Mapping):
        return {}, ""
    if isinstance(content.get("format"), int) and "position" in content:
        if entry is not None:
            raise ValueError(f"{path}: is a checkpoint of a run, which has one set of weights")
        return usable_weights(read(path)), ""  # Of a run, whatever its version.
    held = [name for name in (*_AVERAGED, *_WRAPPERS) if isinstance(content.get(name), Mapping)]
    if entry is None:
        entry = held[0] if held else None
    elif not isinstance(content.get(entry), Mapping):
        return _below(path, content[held[0]] if held else content, entry, held), ""
    if entry is None:
        return content, ""
    others = [name for name in held if name != entry]
    note = f"its {entry}, not its {', '.join(others)}" if others else ""
    return content[entry], note


def _below(
    path: Path, content: Mapping[str, Any], prefix: str, held: Sequence[str]
) -> dict[str, Any]:
    """The part of a state dict whose names begin with a prefix, without it."""
    found = {n.removeprefix(f"{prefix}."): t for n, t in content.items() if _is_in(n, prefix)}
    if not found:
        before = dict.fromkeys(n.partition(".")[0] for n in content if isinstance(n, str))
        raise ValueError(
            f"{path}: has nothing called {prefix!r}; it has {', '.join([*held, *before][:12])}"
        )
    return found


def _is_in(name: Any, prefix: str) -> bool:
    return isinstance(name, str) and name.startswith(f"{prefix}.")
