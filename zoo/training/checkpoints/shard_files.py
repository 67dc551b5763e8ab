"""Checkpoints whose tensors are shards: every process writes its own, by torch's DCP.

The tensors of a checkpoint lie in a folder `shards/<step>-<number>` next to it, and the checkpoint
itself, an ordinary file, names that folder and the checksum of each of its files. It is written
when they are complete, so that a checkpoint is as whole as any. Whoever reads it (a run of one
process, an evaluation) gets whole tensors.

https://pytorch.org/docs/stable/distributed.checkpoint.html
"""

import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from zlib_ng import zlib_ng

SHARDS = "shards"
"""The folder, and the entry of a checkpoint that says where its tensors are and their checksums."""

_METADATA = ".metadata"
_PLACE = "__shard__"
_ALLOWED = {
    "torch.distributed.checkpoint.metadata": {
        *("Metadata", "MetadataIndex", "StorageMeta", "TensorStorageMetadata", "TensorProperties"),
        *("ChunkStorageMetadata", "_MEM_FORMAT_ENCODING"),
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.serialization": {"_get_layout"},
    "pathlib": {"PosixPath", "WindowsPath"},
    "pathlib._local": {"PosixPath", "WindowsPath"},  # From Python 3.13 on.
}


class ShardError(RuntimeError):
    """The shards of a checkpoint cannot be written, or are not what was written, in a clause."""


def split(state: Any) -> tuple[Any, dict[str, Tensor]]:
    """Takes the shards out of a nested state.

    Returns:
        The state with the name of a shard in its place, and the shards by these names; one that is
        there several times has one name.
    """
    from torch.distributed.tensor import DTensor

    shards: dict[str, Tensor] = {}
    names: dict[int, str] = {}

    def visit(value: Any) -> Any:
        if isinstance(value, DTensor):
            name = names.setdefault(id(value), str(len(names)))
            shards[name] = value
            return {_PLACE: name}
        if isinstance(value, dict):
            return {key: visit(entry) for key, entry in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(map(visit, value))
        return value

    return visit(state), shards


def join(state: Any, shards: dict[str, Tensor]) -> Any:
    """Puts tensors back into the places that `split` has left."""
    if isinstance(state, dict):
        if set(state) == {_PLACE}:
            return shards[state[_PLACE]]
        return {key: join(entry, shards) for key, entry in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(join(entry, shards) for entry in state)
    return state


def checksums(folder: Path) -> dict[str, int]:
    """The CRC-32 of each file of a folder, as zip archives have it."""
    found = {}
    for file in sorted(folder.iterdir()):
        value = 0
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                value = zlib_ng.crc32(block, value)
        found[file.name] = value
    return found


def read_shards(folder: Path, sums: dict[str, int]) -> dict[str, Tensor]:
    """Reads whole tensors by their names, in one process, after verifying every byte.

    Args:
        folder: in which all processes have written.
        sums: of its files, from `checksums`.

    Raises:
        ShardError: a file is missing, altered, or not one that DCP writes.
    """
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    try:
        found = checksums(folder)
    except OSError as error:
        raise ShardError(f"its shards in {folder} cannot be read ({error.strerror})") from error
    if damaged := [name for name, value in sums.items() if found.get(name) != value]:
        raise ShardError(f"{folder / damaged[0]} is missing or damaged")
    _require_plain(folder / _METADATA)
    reader = dcp.FileSystemReader(folder)
    entries = reader.read_metadata().state_dict_metadata
    tensors = {
        name: torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in entries.items()
        if isinstance(entry, TensorStorageMetadata)
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # That it is one process is meant.
        dcp.load(tensors, storage_reader=reader, no_dist=True)
    return tensors


class _Plain(pickle.Unpickler):
    """Loads nothing but the classes by which DCP describes tensors: it unpickles them itself."""

    def find_class(self, module: str, name: str) -> Any:
        is_type = module == "torch" and (
            name == "Size" or isinstance(vars(torch).get(name), torch.dtype)
        )
        if not is_type and name not in _ALLOWED.get(module, ()):
            raise ShardError(f"its description of shards holds an object of {module}.{name}")
        return super().find_class(module, name)


def _require_plain(file: Path) -> None:
    with file.open("rb") as stream:
        try:
            _Plain(stream).load()
        except ShardError:
            raise
        except Exception as error:  # A damaged file makes pickle raise almost anything.
            raise ShardError(f"{file} cannot be read ({error})") from error
