"""A checkpoint of your own: what its file holds, and a registry with it as a model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml

from tsmzoo import models
from tsmzoo.catalog.check import count
from tsmzoo.errors import CheckpointError
from tsmzoo.registry import OWN, Entry, LabelMap, Registry, ShiftName
from tsmzoo.text import one_line
from tsmzoo.weights import checkpoint
from tsmzoo.weights.checkpoint_file import CheckpointFile, find_file, read
from tsmzoo.weights.key_maps import detect_backbone, detect_format, short_name

#: Frames of a clip if the most similar model is online: those of the papers' smallest models.
_FRAMES = 8
#: Characters of an id, to which a number may be added.
_LONGEST = 100


class CheckpointInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint of your own, and a registry in which it is a model."""

    file: str
    bytes: int
    sha256: str
    #: Layout of its keys, as `--weights-format` names it.
    format: str
    backbone: str
    classes: int
    #: The shifts it may have been trained with: `unidirectional`, `bidirectional`, null for none.
    shift: list[str | None]
    #: What was found while reading the file.
    notes: list[str]
    #: The model it is most similar to, whose input it is assumed to have.
    like: str
    #: Its id in `registry`.
    model: str
    #: A registry file's content.
    registry: dict[str, Any]


def describe(
    zoo: Registry,
    path: Path,
    model: str | None = None,
    *,
    weights_format: str | None = None,
    shift: ShiftName | None = None,
    names: tuple[str, ...] | None = None,
) -> CheckpointInfo:
    """Return what the checkpoint at `path` is, and a registry in which it is a model.

    Its frames and its input, which no checkpoint holds, are those of `model` (default: the most similar model);
    `names` are its classes. Raises CheckpointError if the file fits no model.
    """
    try:
        file = read(path)
        format_ = weights_format or detect_format(file.state, file.metadata)
        backbone, possible = detect_backbone(file.state), checkpoint.possible_shifts(format_, file)
        if format_ == "torchvision":
            raise CheckpointError(
                f"holds an image network ({backbone}), which is no model of videos; start a training from it: "
                "`weights:` of a recipe"
            )
        held = checkpoint.resolve_shift(possible, shift)
        similar = [zoo.find(model)] if model else _most_similar(zoo, format_, backbone, held)
        found = next(_fitting(similar, file, format_, None if model else held), None)
        if found is None and not model:
            raise CheckpointError(
                f"is {format_} of {backbone}, and fits no model of the registry; name the one that it was made for: "
                "tsmzoo info MODEL --weights FILE"
            )
        if names is not None and found is not None and found[1].classes != len(names):
            raise CheckpointError(f"has {found[1].classes} classes, and --labels names {len(names)}")
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    like, entry = found or (similar[0], similar[0])
    entry = _own(zoo, entry, path, file, format_, shift)
    try:
        msgspec.convert(msgspec.to_builtins(entry), Entry)
        str(path.absolute()).encode()
    except msgspec.ValidationError as error:
        raise CheckpointError(
            f"{short_name(str(path))}: no registry can hold it ({error}); give the file another name or folder, or "
            "a smaller network"
        ) from None
    except UnicodeEncodeError:
        raise CheckpointError(
            f"{short_name(str(path))}: its path is not UTF-8, which a registry is; give the file another name or folder"
        ) from None
    # As it will be loaded: reports what does not fit.
    checkpoint.load(models.build(entry), entry, path, weights_format=weights_format, shift=shift)
    return CheckpointInfo(
        file=str(path),
        bytes=find_file(path).stat().st_size,
        sha256=file.sha256,
        format=format_,
        backbone=entry.backbone,
        classes=entry.classes,
        shift=list(possible) if shift is None else [held],
        notes=list(file.notes),
        like=like.id,
        model=entry.id,
        registry=_registry(zoo, entry, like, names),
    )


def text(info: CheckpointInfo) -> str:
    """Return a registry file, with the facts about the checkpoint in comments."""
    shift = " or ".join(each or "no" for each in info.shift) + " shift"
    if len(info.shift) > 1:
        entry = info.registry["models"][0]
        assumed = (
            "none" if entry["family"] != "tsm" else {"online": "unidirectional"}.get(entry["mode"], "bidirectional")
        )
        shift += f": its keys do not tell, {assumed} is assumed (--shift uni or bi says it)"
    lines = [
        f"{info.file}: {info.format}, {info.backbone}, {info.classes} classes",
        shift,
        f"sha256 {info.sha256}, {info.bytes} bytes",
        *info.notes,
        "",
        f"This is a registry: save it as FILE.yaml, and use the model: tsmzoo run {info.model} VIDEO "
        "--registry FILE.yaml",
        f"Frames, size, sampling and normalisation are those of {info.like}: mend them if yours was trained otherwise.",
    ]
    if info.registry["labels"][info.model].get("names") is None:
        lines.append("The names of its classes are not known: --labels FILE gives them, one a line.")
    comments = "\n".join(f"# {one_line(line)}".rstrip() for line in lines)
    return f"{comments}\n{yaml.safe_dump(info.registry, sort_keys=False, allow_unicode=True, width=120)}".rstrip()


def _most_similar(zoo: Registry, format_: str, backbone: str, held: str | None) -> list[Entry]:
    """Return the models of an architecture, sorted by similarity to a file of `format_` and shift."""
    alike = [entry for entry in zoo.models if entry.backbone == backbone or entry.backbone.startswith(f"{backbone}_")]

    def unlike(entry: Entry) -> tuple[bool, ...]:
        return entry.shift != held, entry.format != format_, entry.dataset == "motion", not entry.recommended

    return sorted(alike, key=unlike)


def _fitting(
    similar: Sequence[Entry], file: CheckpointFile, format_: str, held: str | None
) -> Iterator[tuple[Entry, Entry]]:
    """Yield the models that a file fits, and what each is with the file's classes and shift."""
    tried = set()
    for like in similar:
        entry = like if like.shift == held or held is None else _shifted(like, held)
        fields = ("backbone", "width", "channels", "non_local", "non_local_bias", "family")
        if (key := tuple(getattr(entry, field) for field in fields)) not in tried:
            tried.add(key)
            if fitted := checkpoint.fit_entry(entry, file, format_):
                yield like, fitted


def _shifted(entry: Entry, held: str) -> Entry:
    """Return a model like `entry`, of frames, with a shift of another direction."""
    if entry.family == "i3d":
        return entry
    online = held == "unidirectional"
    return msgspec.structs.replace(
        entry,
        family="tsm",
        mode="online" if online else "offline",
        frames=1 if online else (entry.frames if entry.mode == "offline" else _FRAMES),
        sampling="stream" if online else ("uniform" if entry.mode == "online" else entry.sampling),
        target_fps=entry.target_fps if online else None,
        stride=None if online else entry.stride,
        shift_frames=None,
    )


def _own(zoo: Registry, entry: Entry, path: Path, file: CheckpointFile, format_: str, shift: ShiftName | None) -> Entry:
    stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", find_file(path).name.split(".")[0]).lstrip("_.-")[:_LONGEST] or "mine"
    taken = {*zoo.by_id, *zoo.aliases, *zoo.labels, *zoo.normalisations}
    id_ = next(
        name for name in (stem, *(f"{stem}-{number}" for number in range(2, len(taken) + 3))) if name not in taken
    )
    kept = {
        field: getattr(entry, field)
        for field in (
            *("family", "mode", "backbone", "width", "classes", "modality", "frames", "size", "resize", "multi_label"),
            *("shift_div", "shift_place", "shift_frames", "non_local", "non_local_bias"),
            *("sampling", "stride", "target_fps"),
        )
    }
    figures = count(entry)
    return Entry(
        id=id_,
        **kept,
        dataset=OWN,
        source=OWN,
        licence="not stated",
        normalisation=entry.normalisation,
        labels=id_,
        states=figures.states,  # type: ignore[arg-type]  # of four axes
        format=format_,  # type: ignore[arg-type]  # one of FORMATS
        said_shift=shift,
        file=str(find_file(path).absolute()),
        sha256=file.sha256,
        params=figures.params,
        gmacs=figures.gmacs,
    )


def _registry(zoo: Registry, entry: Entry, like: Entry, names: tuple[str, ...] | None) -> dict[str, Any]:
    """Return a registry of `entry` alone, in plain values.

    Defaults are left out, except of its mode and modality, on which everything after them depends.
    """
    normalisation = zoo.normalisations[entry.normalisation]
    named = msgspec.structs.replace(entry, normalisation=entry.id)
    defaults = {field.encode_name: field.default for field in msgspec.structs.fields(Entry)}
    del defaults["mode"], defaults["modality"]
    return {
        "models": [
            {
                key: value
                for key, value in msgspec.to_builtins(named).items()
                if value not in (defaults.get(key), [], None)
            }
        ],
        "sources": {OWN: {"name": "your own", "citation": "none stated"}},
        "normalisations": {
            entry.id: msgspec.to_builtins(msgspec.structs.replace(normalisation, about=f"as of {like.id}"))
        },
        "labels": {
            entry.id: {
                key: value
                for key, value in msgspec.to_builtins(
                    LabelMap(classes=entry.classes, order="of the file's classifier", names=names)
                ).items()
                if value is not None
            }
        },
    }
