"""A mirror of one's own: checkpoints laid out as safetensors, with a registry that names each by its whole digest.

    <folder>/registry.yaml          the models, for `--registry`; this registry is what is trusted
    <folder>/README.md              where each file is from, its digests and its licence
    <folder>/<id>/<file>.safetensors

With `original`, files keep the bytes that were published and are called so: `TSMZOO_MIRROR` names such a folder, and
its files are held to the published digests.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import yaml

from tsmzoo.callbacks import Notify, Progress, silent
from tsmzoo.errors import CheckpointError, DownloadError, RegistryError
from tsmzoo.registry import Entry, Registry, document
from tsmzoo.system import files
from tsmzoo.weights import cache, checkpoint, checkpoint_file, download, http

REGISTRY = "registry.yaml"
README = "README.md"
_README = """# Checkpoints of video models

Laid out by `tsmzoo mirror`. Each file is under the licence of its publisher, not of who mirrors it.
{use}
"""
_HEAD = "| file | sha256 | published at | sha256 there | licence |\n|---|---|---|---|---|\n"
_USE = """
`registry.yaml` names the files by their sha256; whoever uses it trusts it:

    tsmzoo download MODEL --registry registry.yaml
"""
_USE_ORIGINAL = """
The files have the bytes that were published. `TSMZOO_MIRROR`, set to the https or hf:// address of this folder, is
tried before the published addresses, and its files are held to the published digests.
"""


class Mirrored(msgspec.Struct, frozen=True):
    """A checkpoint in a mirror."""

    id: str
    #: The file that was written.
    path: str
    bytes: int
    sha256: str
    #: Where the checkpoint was published, and the sha256 of that file.
    source: str | None
    source_sha256: str
    #: What the published file was held to: all of a sha256, a git blob id, the first digits of a sha256 (weak), the
    #: sha256 of the first download on this machine, nothing.
    pin: cache.Pin
    licence: str


def mirror(
    zoo: Registry,
    entries: Iterable[Entry],
    folder: Path,
    *,
    url: str | None = None,
    original: bool = False,
    progress: Progress = silent,
    notify: Notify = silent,
) -> list[Mirrored]:
    """Lay out the checkpoints of `entries` in `folder`; what is in its registry already stays there.

    A model of several that cannot be fetched is reported by `notify`, and the others follow; at the end DownloadError
    names it. Raises DownloadError, also if `folder` cannot be written, CheckpointError and RegistryError; what was laid
    out stays, and is complete.
    """
    if url is not None:
        _address(url, "")
    _readme_rows(folder)  # raises before anything is written
    _registry(folder)
    done, failed = list[Mirrored](), list[str]()
    entries = list(entries)
    for entry in entries:
        try:
            published = download.fetch(entry, progress=progress, notify=notify)
        except DownloadError as error:
            if len(entries) == 1:
                raise
            notify(f"error: {error}")  # one dead host must not prevent the others
            failed.append(entry.id)
            continue
        progress(f"laying out {entry.id}", 0, 0)
        try:
            mirrored = _lay_out(entry, published, folder, original=original)
            with files.exclusive(folder):  # another process may add to it
                if not original:
                    _add_to_registry(zoo, entry, mirrored, folder, url)
                _add_to_readme(folder, mirrored, original=original)
        except OSError as error:
            raise DownloadError(
                f"{folder}: {entry.id} could not be written there ({files.reason(error)}); make room, or choose "
                "another folder"
            ) from None
        done.append(mirrored)
    if failed:
        raise DownloadError(f"{len(failed)} of {len(entries)} were not fetched: {', '.join(failed)}; run it again")
    return done


def _lay_out(entry: Entry, published: Path, folder: Path, *, original: bool) -> Mirrored:
    """Write the checkpoint of `entry` into its folder. Raises OSError, CheckpointError."""
    place = folder / entry.id
    place.mkdir(parents=True, exist_ok=True)
    if original:
        for path in cache.local_paths(entry):
            _copy(path, place / path.name)
        target, source_sha256 = place / published.name, files.sha256(published).hexdigest()
    else:
        target = place / f"{_stem(published.name)}.safetensors"
        source_sha256 = _write_safetensors(entry, published, target)
    return Mirrored(
        entry.id,
        str(target),
        target.stat().st_size,
        files.sha256(target).hexdigest(),
        next(iter(entry.urls), None),
        source_sha256,
        cache.pin(entry),
        entry.licence,
    )


def _stem(name: str) -> str:
    """Return the name of a checkpoint without its ending; the data file of a TensorFlow checkpoint has a long one."""
    return name.partition(".data-")[0] if ".data-" in name else PurePosixPath(name).stem


def _copy(path: Path, to: Path) -> None:
    with files.replacing(to) as part:
        shutil.copyfile(path, part)


def _write_safetensors(entry: Entry, published: Path, target: Path) -> str:
    """Write the tensors of a checkpoint, names and values kept, and return the sha256 of `published`."""
    import safetensors.torch

    try:
        file = checkpoint_file.read(published)
        checkpoint.check(entry, file)
    except CheckpointError as error:
        raise CheckpointError(f"{published}: {error}") from None
    if published.suffix == ".safetensors":
        _copy(published, target)
        return file.sha256
    about = {"source": next(iter(entry.urls), ""), "source_sha256": file.sha256, "licence": entry.licence}
    # Each a tensor of its own: safetensors refuses views and tensors that share memory.
    state = {name: tensor.detach().clone().contiguous() for name, tensor in sorted(file.state.items())}
    with files.replacing(target) as part:
        # One text, since the order of several is not kept, and the digest would change with it.
        # Not by save_file, whose errors of a full disk are no OSError.
        part.write_bytes(safetensors.torch.save(state, {"mirrored": json.dumps(about)}))
    return file.sha256


def _registry(folder: Path) -> dict[str, Any]:
    """Return the mirror's registry as it is. Raises RegistryError if it is none."""
    path = folder / REGISTRY
    return document(path) if path.exists() else {"models": []}


def _add_to_registry(zoo: Registry, entry: Entry, mirrored: Mirrored, folder: Path, url: str | None) -> None:
    """Write the entry of a mirrored file into the mirror's registry, in place of an older one of the same id."""
    path = folder / REGISTRY
    before = _registry(folder)
    where = f"{entry.id}/{Path(mirrored.path).name}"
    own = msgspec.structs.replace(
        entry,
        urls=() if url is None else (_address(url, where),),
        file=where if url is None else None,
        beside=(),
        sha256=mirrored.sha256,
        sha256_prefix=None,
        git_blob_sha1=None,
        pinned=None,
        notes=(
            *entry.notes,
            f"a mirror's copy of the tensors of {mirrored.source or entry.file}, sha256 {mirrored.source_sha256} "
            f"(pin: {mirrored.pin})",
        ),
    )
    record = {key: value for key, value in msgspec.to_builtins(own).items() if value not in (None, [], ())}
    names = {alias: entry.id for alias in zoo.names(entry)}
    added = {
        "sources": {entry.source: zoo.sources[entry.source]},
        "normalisations": {entry.normalisation: zoo.normalisations[entry.normalisation]},
        "labels": {entry.labels: zoo.labels[entry.labels]},
        "aliases": names,
    }
    merged = before | {key: (before.get(key) or {}) | msgspec.to_builtins(table) for key, table in added.items()}
    merged["models"] = [
        *(each for each in before["models"] if not (isinstance(each, dict) and each.get("id") == entry.id)),
        record,
    ]
    files.write(path, yaml.safe_dump(merged, sort_keys=False, allow_unicode=True, width=120))


def _address(base: str, where: str) -> str:
    """Return the address of a file below `base`; on the hub `hf://USER/REPO@REVISION` names a revision.

    Raises RegistryError if no mirror can have that.
    """
    if not re.match(r"https://|hf://[^/@]+/[^/@]+|http://(127\.0\.0\.1|localhost)", base):
        shown = http.without_credentials(base)
        raise RegistryError(f"{shown}: is no address of a mirror; give https://… or hf://USER/REPO")
    if http.without_credentials(base) != base:
        raise RegistryError(
            "the address of a mirror has a user name, a password or a query, and its registry would tell them; leave "
            "them out"
        )
    return download.below(base, where)


def _readme_rows(folder: Path) -> dict[str, str]:
    """Return the rows of README.md by file. Raises RegistryError if it is not ours."""
    path = folder / README
    if not path.exists():
        return {}
    _, found, table = files.read_text(path).partition(_HEAD)
    if not found:
        raise RegistryError(f"{path}: is in the way; move it, or choose another folder")
    return {line.split("|")[1].strip(): line for line in table.splitlines()}


def _add_to_readme(folder: Path, mirrored: Mirrored, *, original: bool) -> None:
    rows = _readme_rows(folder)
    name = f"{mirrored.id}/{Path(mirrored.path).name}"
    cells = (name, mirrored.sha256, mirrored.source or "", mirrored.source_sha256, mirrored.licence)
    rows[name] = "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    use = (_USE_ORIGINAL if original else _USE).rstrip()
    table = "".join(f"{rows[name]}\n" for name in sorted(rows))
    files.write(folder / README, f"{_README.format(use=use)}\n{_HEAD}{table}")
