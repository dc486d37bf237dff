"""Read, check and write exported files and their contracts as pairs."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

import msgspec

from tsmzoo.artifact.contract import Contract, contract_path
from tsmzoo.errors import ArtifactError
from tsmzoo.formats import Format, format_of, is_artifact
from tsmzoo.system import files


def _older_contract_path(artifact: Path) -> Path:
    """Return where the contract of `artifact` waits once a file of another format has taken `NAME.json`.

    It waits there, too, until the file that it is of has its name.
    """
    return artifact.with_name(artifact.name + ".json")


def read_contract(artifact: Path) -> Contract:
    """Read the contract beside `artifact`. Raises ArtifactError if there is none, or none of this file."""
    return _chosen(artifact)[1]


def _chosen(artifact: Path) -> tuple[Path, Contract]:
    """Return the contract of `artifact` and where it lies: of two, that with the file's digest.

    There are two where an export was killed before the second of its two renames.
    """
    with suppress(OSError):
        files.recover(artifact)
    if not os.path.exists(artifact):  # Path.exists raises where the name is too long
        raise ArtifactError(f"{artifact}: does not exist; give a file that `tsmzoo export` wrote")
    found, wrong, format_ = [], [], format_of(artifact)
    for path in (_older_contract_path(artifact), contract_path(artifact)):
        if not os.path.isfile(path):
            continue
        try:
            contract = msgspec.json.decode(files.read(path), type=Contract)
        except (OSError, msgspec.MsgspecError) as error:
            wrong.append(f"{path}: is no contract of this version ({error}); export again")
            continue
        if contract.format == format_:
            found.append((path, contract))
    if not found:
        raise ArtifactError(
            wrong[-1]  # of NAME.json, where there are two
            if wrong
            else f"{artifact}: its contract {contract_path(artifact).name} is not beside it; "
            "keep both together or export again"
        )
    if len(found) > 1:
        sha256, _ = digest(artifact)
        found.sort(key=lambda each: each[1].sha256 != sha256)
    return found[0]


def check_way(artifact: Path) -> None:
    """Raise ArtifactError if writing the contract of `artifact` would overwrite a file that is not ours."""
    _ways(artifact)


def make_way(artifact: Path) -> None:
    """Move the contract of another file of the same NAME aside, before that of `artifact` is written.

    `m.json` of `m.onnx` becomes `m.onnx.json` when `m.tflite` is exported beside it; `read_contract`
    finds it there. That of an older `artifact` is then in `m.json`.
    """
    for path, to in _ways(artifact):
        os.replace(path, to)


def _ways(artifact: Path) -> list[tuple[Path, Path]]:
    """Return the renames that free both places of a contract of `artifact`, in order; each loses nothing that is used.

    Raises ArtifactError if a file lies there that is no contract, or that has no other place.
    """
    plain, older = contract_path(artifact), _older_contract_path(artifact)
    ways = [*_aside(older, artifact), *_aside(plain, artifact)]
    if _is_used(older, artifact) and older not in (path for path, _ in ways):
        ways.append((older, plain))
    return ways


def _aside(path: Path, artifact: Path) -> list[tuple[Path, Path]]:
    """Return the renames that free `path` of the contract of another file than `artifact`."""
    if not path.exists():
        return []
    try:
        msgspec.json.decode(files.read(path), type=Contract)
    except (OSError, msgspec.MsgspecError):
        raise ArtifactError(
            f"{path}: is in the way and no contract of this version; move it, or choose another name with -o"
        ) from None
    # What reads it, whatever it says of itself: a contract may come from anywhere, and files be renamed.
    owners = [path.with_suffix(format_.suffix) for format_ in Format]
    if is_artifact(path.stem):
        owners.append(path.with_suffix(""))
    for owner in owners:
        if owner != artifact and _is_used(path, owner):
            to = _older_contract_path(owner)
            if to == path:
                raise ArtifactError(f"{path}: is the contract of {owner.name}; choose another name with -o")
            return [*_aside(to, owner), (path, to)]
    return []


def _is_used(path: Path, artifact: Path) -> bool:
    """Return whether the contract of `artifact` is that in `path`."""
    try:
        return _chosen(artifact)[0] == path
    except ArtifactError:  # no such file, or none of ours
        return False


def put(made: Path, contract: Contract, artifact: Path) -> None:
    """Give `made`, a file or package, and its contract the names of `artifact`, in place of an older pair.

    A process that is killed in between leaves the older pair or the new one, for which `read_contract` looks by the
    file's digest. Raises OSError, or ArtifactError if a file that is not ours is in the way; the older pair, or the
    new one, is then there.
    """
    written = made.with_name(f"{made.name}.json")
    write_contract(contract, written)
    files.sync(made)
    files.sync(written)
    waiting = _older_contract_path(artifact)
    with files.exclusive(artifact.parent):  # two exports of one NAME move each other's contracts
        make_way(artifact)
        try:
            files.supplant(written, waiting)
            files.supplant(made, artifact)
        except BaseException:
            if not (os.path.exists(artifact) and digest(artifact)[0] == contract.sha256):
                files.remove(waiting)
            raise
        files.supplant(waiting, contract_path(artifact))


def write_contract(contract: Contract, path: Path) -> None:
    """Write `contract` as readable JSON."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(contract), indent=2) + b"\n")


def digest(artifact: Path) -> tuple[str, int]:
    """Return sha256 and size in bytes of a file, or of a package: its files' names and contents, sorted.

    Raises ArtifactError if it cannot be read.
    """
    try:
        if artifact.is_file():
            return files.sha256(artifact).hexdigest(), artifact.stat().st_size
        total, size = hashlib.sha256(), 0
        for path in sorted(path for path in artifact.rglob("*") if path.is_file()):
            total.update(os.fsencode(path.relative_to(artifact).as_posix()) + b"\0")
            total.update(files.sha256(path).digest())
            size += path.stat().st_size
    except OSError as error:
        raise ArtifactError(f"{artifact}: cannot be read ({error.strerror}); check its permissions") from None
    return total.hexdigest(), size


def opened(path: Path) -> Contract:
    """Return the contract of the file at `path`, whose digest is still the contract's.

    Raises ArtifactError if there is none, or the file was changed since.
    """
    contract = read_contract(path)
    sha256, size = digest(path)
    if sha256 != contract.sha256:
        raise ArtifactError(
            f"{path}: was changed since its export (sha256 {sha256[:12]}…, {size} bytes; its contract says "
            f"{str(contract.sha256)[:12]}…, {contract.bytes}); export it again"
        )
    return contract
