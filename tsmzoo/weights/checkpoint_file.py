"""Read checkpoint files of any format into tensors by name, memory-mapped if possible.

Nothing in a file is executed: pickles, torch.save's and plain ones, are interpreted here (`unpickling.py`), safetensors
and TensorFlow files are read by libraries that read tensors alone.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import os
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from tsmzoo.errors import CheckpointError
from tsmzoo.system import files
from tsmzoo.text import of_error
from tsmzoo.weights import flax, tensorflow, unpickling
from tsmzoo.weights.unpickling import TensorRef
from tsmzoo.weights.unwrapping import NetworkState, find_network, strip_prefixes

#: Key of our own format in the metadata of a safetensors file.
METADATA = "tsmzoo"
#: First pickles of a file of torch.save before zip archives: magic number and version.
_MAGIC = (0x1950A86A20F9469CFC6C, 1001)
#: The most bytes that are decompressed from an archive.
_MAX_UNPACKED_BYTES = 4 * 2**30
_MAX_PICKLE_BYTES = 2**29

_DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    **{
        f"torch.{dtype}": getattr(torch, dtype)
        for dtype in (
            *("float32", "float64", "float16", "bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2"),
            *("float8_e5m2fnuz", "int64", "int32", "int16", "int8", "uint8", "uint16", "uint32", "uint64", "bool"),
        )
    },
}


@dataclass(frozen=True)
class CheckpointFile:
    """The network in a checkpoint file: its tensors by the keys of its own class."""

    sha256: str
    state: dict[str, Tensor]
    #: Metadata of our own format; empty for others.
    metadata: dict[str, Any] = field(default_factory=dict)
    #: Notes on which network was taken, if there are several.
    notes: tuple[str, ...] = ()


def read(path: Path) -> CheckpointFile:
    """Read the checkpoint at `path`.

    Raises CheckpointError if it cannot be read, needs code to be read, or holds no network, or several.
    """
    path = find_file(path)
    if path.is_dir():
        raise CheckpointError("is a directory; give the checkpoint file in it")
    try:
        with files.opened(path) as file:
            if not file.peek(1):  # type: ignore[attr-defined]  # what `open` gives is buffered
                raise CheckpointError("is empty; download it again")
            before = os.fstat(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]  # it is buffered
            file.seek(0)
            first = file.read(9)
            metadata: dict[str, Any] = {}
            if path.suffix == tensorflow.DATA or first.startswith(tensorflow.GZIP):
                arrays = (tensorflow.read if path.suffix == tensorflow.DATA else tensorflow.read_archive)(path)
                found = NetworkState({key: torch.from_numpy(array) for key, array in arrays.items()})
            elif path.suffix == ".safetensors" or first[8:] == b"{":  # behind the length of its header
                state, metadata = _read_safetensors(path)
                found = strip_prefixes(state)
            else:
                found = _read_torch(file, first)
            # Some libraries open it again, by its path.
            after = os.stat(path)
            if not os.path.samestat(before, after) or (before.st_size, before.st_mtime_ns) != (
                after.st_size,
                after.st_mtime_ns,
            ):
                raise CheckpointError("changed while it was read; try again when nothing writes it")
            if not found.state:
                raise CheckpointError("holds no tensors; give a checkpoint file")
    except FileNotFoundError:
        raise CheckpointError("does not exist; check the path given with --weights") from None
    except OSError as error:
        raise CheckpointError(f"cannot be read ({error.strerror or error}); give a checkpoint file") from None
    return CheckpointFile(digest, found.state, metadata, found.notes)


def find_file(path: Path) -> Path:
    """Return the file of the checkpoint at `path`; for TensorFlow checkpoints, which are two files, the data file.

    Raises CheckpointError if the other file is missing, or a folder holds several checkpoints.
    """
    try:
        return tensorflow.data_file(path) or path
    except OSError as error:
        raise CheckpointError(f"cannot be read ({error.strerror}); check its permissions") from None


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    import safetensors
    import safetensors.torch

    try:
        state = safetensors.torch.load_file(path)
        with safetensors.safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(METADATA)
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"is no safetensors file ({of_error(error)}); download it again") from None
    try:
        metadata = json.loads(text or "{}")
    except (ValueError, RecursionError):
        metadata = {}
    return state, metadata if isinstance(metadata, dict) else {}


# --- torch.save's files, and plain pickles ----------------------------------------------------------------------------


def _read_torch(file: BinaryIO, first: bytes) -> NetworkState:
    file.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd escapes in texts of old pickles
            # Copy on write: torch does not take read-only memory.
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            content, storage = _read_archive(file, mapped) if first.startswith(b"PK\x03\x04") else _read_legacy(mapped)
            if storage is None:
                return NetworkState({key: torch.from_numpy(array) for key, array in content.items()})
            state, notes = find_network(content)
            tensors = {key: _make_tensor(stored, storage) for key, stored in state.items()}
    # Errors of damaged files; none comes from our own code, which works on plain data.
    except (
        *(ValueError, IndexError, KeyError, OverflowError, EOFError),
        *(zipfile.BadZipFile, zlib.error, NotImplementedError),  # the last of zip's own: later versions, unknown flags
    ) as error:
        raise CheckpointError(
            f"is damaged or not a checkpoint ({type(error).__name__}: {of_error(error)}); get it again"
        ) from None
    found = strip_prefixes(tensors)
    return NetworkState(found.state, (*notes, *found.notes))


@dataclass(frozen=True)
class _Storages:
    """Access to the storages of a file."""

    #: Returns the bytes of the storage with a key.
    bytes_of: Callable[[str], Tensor]
    #: Numbers are big-endian.
    swapped: bool = False
    #: Copies of storages by key and bytes of a number, each for all tensors that view it.
    copies: dict[tuple[str, int], Tensor] = field(default_factory=dict)

    def numbers(self, key: str, dtype: torch.dtype) -> Tensor:
        """Return a storage as numbers, in this machine's byte order and aligned."""
        numbers, width = self.bytes_of(key), dtype.itemsize
        if (key, width) in self.copies:
            return self.copies[key, width].view(dtype)
        numbers = numbers[: numbers.numel() // width * width]
        if self.swapped and width > 1:
            numbers = self.copies[key, width] = numbers.view(-1, width).flip(1).reshape(-1)
        elif numbers.data_ptr() % width:
            numbers = self.copies[key, width] = numbers.clone()
        return numbers.view(dtype)


def _read_archive(file: BinaryIO, mapped: mmap.mmap) -> tuple[Any, _Storages]:
    """Return the unpickled content of a zip archive of torch.save, and its storages."""
    archive = zipfile.ZipFile(file)
    members = {member.filename: member for member in archive.infolist()}
    if len(members) != len(archive.infolist()):
        raise CheckpointError("has two members of one name, and nothing says which is meant; get it again")
    folders = {name.partition("/")[0] for name in members}
    top = f"{folders.pop()}/" if len(folders) == 1 else ""
    if f"{top}constants.pkl" in members or f"{top}bytecode.pkl" in members:
        raise CheckpointError(
            "is a TorchScript archive, which is code; refused, save the weights alone: "
            "torch.save(torch.jit.load(file).state_dict(), …)"
        )
    if f"{top}archive_format" in members:
        raise CheckpointError("is an archive of torch.export, which is code; refused, save the state_dict() instead")
    if f"{top}data.pkl" not in members:
        raise CheckpointError("is a zip archive that torch.save did not write; give a checkpoint file")
    swapped = f"{top}byteorder" in members and _unpack(archive, members[f"{top}byteorder"], 16) == b"big"
    content, _ = unpickling.load(BytesIO(_unpack(archive, members[f"{top}data.pkl"], _MAX_PICKLE_BYTES)))
    left = _MAX_UNPACKED_BYTES
    unpacked: dict[str, Tensor] = {}

    def bytes_of(key: str) -> Tensor:
        nonlocal left
        if key not in unpacked:
            member = members[f"{top}data/{key}"]
            if member.compress_type == zipfile.ZIP_STORED and not member.flag_bits & 1:
                unpacked[key] = _as_bytes_tensor(mapped, _data_offset(mapped, member), member.file_size)
            else:
                data = bytearray(_unpack(archive, member, left))
                left -= len(data)
                unpacked[key] = _as_bytes_tensor(data, 0, len(data))
        return unpacked[key]

    return content, _Storages(bytes_of, swapped)


def _unpack(archive: zipfile.ZipFile, member: zipfile.ZipInfo, most: int) -> bytes:
    if member.file_size > most or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{member.filename} unfolds to {member.file_size} bytes")
    if member.flag_bits & 1:
        raise ValueError(f"{member.filename} is encrypted")
    return archive.read(member)


def _data_offset(mapped: mmap.mmap, member: zipfile.ZipInfo) -> int:
    """Return the offset of a member's bytes: after its local header, whose lengths differ from the directory's."""
    header = mapped[member.header_offset : member.header_offset + 30]
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise zipfile.BadZipFile(f"{member.filename} is not where the directory says")
    name, extra = struct.unpack("<HH", header[26:])
    return int(member.header_offset + 30 + name + extra)


def _read_legacy(mapped: mmap.mmap) -> tuple[Any, _Storages | None]:
    """Return the unpickled content of a file of torch.save before zip archives, and its storages.

    Of a plain pickle that holds NumPy arrays, return these by name, and None.
    """
    if mapped[257:262] == b"ustar":
        raise CheckpointError("is a tar archive, as torch wrote until 2017 at most; save it again with torch.save")
    stream: Any = mapped  # it reads as a file does
    try:
        first, _ = unpickling.load(stream)
        if arrays := flax.variables(first):
            return arrays, None
        if (first, unpickling.load(stream)[0]) != _MAGIC:
            raise ValueError
    except (ValueError, IndexError, KeyError, OverflowError):
        raise CheckpointError("is not a file written by torch.save; give a checkpoint file") from None
    unpickling.load(stream)  # facts of the writing machine; numbers are little-endian in any case
    content, kinds = unpickling.load(stream)
    keys, _ = unpickling.load(stream)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ValueError("it lists no storages")
    places: dict[str, tuple[int, int]] = {}
    for key in keys:
        (length,) = struct.unpack("<q", mapped.read(8).ljust(8, b"\xff"))
        start, size = mapped.tell(), length * _element_size(kinds[key])
        if length < 0 or start + size > len(mapped):
            raise ValueError("it ends before its last tensor")
        places[key] = start, size
        mapped.seek(start + size)
    return content, _Storages(lambda key: _as_bytes_tensor(mapped, *places[key]))


def _element_size(kind: str) -> int:
    if dtype := _DTYPES.get(kind):
        return int(dtype.itemsize)
    return 4 if kind == "QInt32Storage" else 1  # what is quantised, or bytes


def _as_bytes_tensor(data: mmap.mmap | bytearray, start: int, size: int) -> Tensor:
    """Return bytes as a tensor, without a copy."""
    if start + size > len(data):
        raise ValueError("it ends before its last tensor")
    if not size:
        return torch.empty(0, dtype=torch.uint8)
    return torch.frombuffer(data, dtype=torch.uint8, count=size, offset=start)


def _make_tensor(stored: TensorRef, storages: _Storages) -> Tensor:
    """Return a tensor; on the meta device if it is sparse, nested, quantized or has no data."""
    storage = stored.storage
    dtype = _DTYPES.get(stored.dtype or storage.kind) if storage else None
    if storage is None or dtype is None:
        return torch.empty(stored.size, device="meta")
    count = storages.bytes_of(storage.key).numel() // dtype.itemsize
    offset = stored.offset + storage.offset
    last = offset + sum((length - 1) * step for length, step in zip(stored.size, stored.stride, strict=True))
    if math.prod(stored.size) == 0:
        return torch.empty(stored.size, dtype=dtype)
    if last >= count:
        raise ValueError("a tensor has more numbers than its storage")
    return storages.numbers(storage.key, dtype).as_strided(stored.size, stored.stride, offset)
