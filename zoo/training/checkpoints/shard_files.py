"""Checkpoints whose tensors are shards: every process writes its own, by torch's DCP.

The tensors of a checkpoint lie in a folder `shards/<step>-<number>` next to it, and the checkpoint
itself, an ordinary file, names that folder and the checksum of each of its files. It is written
when they are complete, so that a checkpoint is as whole as any. A run of shards, of as many
processes or others, reads its own parts back; whoever else reads it (a run of one process, an
evaluation) gets whole tensors.

https://pytorch.org/docs/stable/distributed.checkpoint.html
"""

import os
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from zlib_ng import zlib_ng

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from torch.distributed.checkpoint import FileSystemReader
    from torch.distributed.device_mesh import DeviceMesh

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
            shards[name] = value.detach()
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
    files = sorted(folder.iterdir())
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return dict(zip((file.name for file in files), pool.map(_checksum, files), strict=True))


def _checksum(file: Path) -> int:
    value = 0
    with file.open("rb") as stream:
        while block := stream.read(1 << 22):
            value = zlib_ng.crc32(block, value)
    return value


def verify_shards(folder: Path, sums: dict[str, int]) -> None:
    """Reads every byte of the shards of a checkpoint.

    Args:
        folder: in which all processes have written.
        sums: of its files, from `checksums`.

    Raises:
        ShardError: a file is missing, altered, or not one that DCP writes.
    """
    try:
        found = checksums(folder)
    except OSError as error:
        raise ShardError(f"its shards in {folder} cannot be read ({error.strerror})") from error
    if damaged := [name for name, value in sums.items() if found.get(name) != value]:
        raise ShardError(f"{folder / damaged[0]} is missing or damaged")
    _require_plain(folder / _METADATA)


def read_whole(folder: Path) -> dict[str, Tensor]:
    """Reads whole tensors by their names, in one process; to be verified before."""
    import torch.distributed.checkpoint as dcp

    reader = dcp.FileSystemReader(folder)
    tensors = {
        name: torch.empty(size, dtype=dtype) for name, (size, dtype) in _sizes(reader).items()
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # That it is one process is meant.
        dcp.load(tensors, storage_reader=reader, no_dist=True)
    return tensors


def read_parts(folder: Path, mesh: "DeviceMesh", group: "ProcessGroup") -> dict[str, Tensor]:
    """Reads the part of each tensor that is this process's; all processes have to ask.

    Args:
        folder: of verified shards, of as many processes or others.
        mesh: over which each tensor is divided in its first dimension.
        group: in which they tell each other who reads what.
    """
    import torch.distributed.checkpoint as dcp
    from torch.distributed.tensor import Shard, empty

    reader = dcp.FileSystemReader(folder)
    tensors: dict[str, Tensor] = {
        name: empty(size, dtype=dtype, device_mesh=mesh, placements=[Shard(0)])
        for name, (size, dtype) in _sizes(reader).items()
    }
    dcp.load(tensors, storage_reader=reader, process_group=group)
    return tensors


def _sizes(reader: "FileSystemReader") -> dict[str, tuple[torch.Size, torch.dtype]]:
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    entries = reader.read_metadata().state_dict_metadata.items()
    tensors = ((n, e) for n, e in entries if isinstance(e, TensorStorageMetadata))
    return {name: (entry.size, entry.properties.dtype) for name, entry in tensors}


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
