"""A checkpoint of one's own as a model of the registry: what its file tells, and a registry that holds it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml

from tsmzoo import models
from tsmzoo.errors import CheckpointError
from tsmzoo.models.flops import count
from tsmzoo.models.wrappers import state_shapes
from tsmzoo.registry import OWN, Entry, LabelMap, Registry, ShiftName
from tsmzoo.text import one_line
from tsmzoo.weights import checkpoint
from tsmzoo.weights.checkpoint_file import CheckpointFile, find_file, read
from tsmzoo.weights.key_maps import detect_backbone, detect_format, short_name

#: Frames of a clip where the model that a file is likest to has none: those of the papers' smallest models.
_FRAMES = 8
#: Characters of an id, to which a number may be added.
_LONGEST = 100


def document(
    zoo: Registry,
    path: Path,
    model: str | None = None,
    *,
    weights_format: str | None = None,
    shift: ShiftName | None = None,
    names: tuple[str, ...] | None = None,
) -> dict[str, Any]:
    """Return what the checkpoint at `path` is, and a registry in which it is a model.

    What no checkpoint tells, its frames and its input, are those of `model`, else of the model that it is likest to;
    `names` are its classes. Raises CheckpointError where the file fits no model.
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
        likest = [zoo.find(model)] if model else _likest(zoo, format_, backbone, held)
        found = next(_fitting(likest, file, format_, None if model else held), None)
        if found is None and not model:
            raise CheckpointError(
                f"is {format_} of {backbone}, and fits no model of the registry; name the one that it was made for: "
                "tsmzoo info MODEL --weights FILE"
            )
        if names is not None and found is not None and found[1].classes != len(names):
            raise CheckpointError(f"has {found[1].classes} classes, and --labels names {len(names)}")
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    like, entry = found or (likest[0], likest[0])
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
    # As it will be loaded: this says what does not fit.
    checkpoint.load(models.build(entry), entry, path, weights_format=weights_format, shift=shift)
    return {
        "file": str(path),
        "bytes": find_file(path).stat().st_size,
        "sha256": file.sha256,
        "format": format_,
        "backbone": entry.backbone,
        "classes": entry.classes,
        "shift": [each for each in possible] if shift is None else [held],
        "notes": list(file.notes),
        "like": like.id,
        "model": entry.id,
        "registry": _registry(zoo, entry, like, names),
    }


def text(document: dict[str, Any]) -> str:
    """Return a registry file, what is told of the checkpoint in comments."""
    shift = " or ".join(each or "no" for each in document["shift"]) + " shift"
    if len(document["shift"]) > 1:
        entry = document["registry"]["models"][0]
        assumed = (
            "none" if entry["family"] != "tsm" else {"online": "unidirectional"}.get(entry["mode"], "bidirectional")
        )
        shift += f": its keys do not tell, {assumed} is assumed (--shift uni or bi says it)"
    lines = [
        f"{document['file']}: {document['format']}, {document['backbone']}, {document['classes']} classes",
        shift,
        f"sha256 {document['sha256']}, {document['bytes']} bytes",
        *document["notes"],
        "",
        f"This is a registry: save it as FILE.yaml, and use the model: tsmzoo run {document['model']} VIDEO "
        "--registry FILE.yaml",
        f"Frames, size, sampling and normalisation are those of {document['like']}: mend them if yours was trained "
        "otherwise.",
    ]
    if document["registry"]["labels"][document["model"]].get("names") is None:
        lines.append("The names of its classes are not known: --labels FILE gives them, one a line.")
    comments = "\n".join(f"# {one_line(line)}".rstrip() for line in lines)
    return (
        f"{comments}\n{yaml.safe_dump(document['registry'], sort_keys=False, allow_unicode=True, width=120)}".rstrip()
    )


def _likest(zoo: Registry, format_: str, backbone: str, held: str | None) -> list[Entry]:
    """Return the models of an architecture, those first that are most like a file of `format_` and shift."""
    alike = [entry for entry in zoo.models if entry.backbone == backbone or entry.backbone.startswith(f"{backbone}_")]

    def unlike(entry: Entry) -> tuple[bool, ...]:
        return entry.shift != held, entry.format != format_, entry.dataset == "motion", not entry.recommended

    return sorted(alike, key=unlike)


def _fitting(
    likest: Sequence[Entry], file: CheckpointFile, format_: str, held: str | None
) -> Iterator[tuple[Entry, Entry]]:
    """Yield the models that a file fits, and what each is with the file's classes and shift."""
    tried = set()
    for like in likest:
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
            *("family", "mode", "backbone", "width", "classes", "modality", "frames", "size", "multi_label"),
            *("shift_div", "shift_place", "shift_frames", "non_local", "non_local_bias"),
            *("sampling", "stride", "target_fps"),
        )
    }
    net = models.build(entry)
    states = state_shapes(net, entry.channels, entry.size) if entry.mode == "online" else []
    return Entry(
        id=id_,
        **kept,
        dataset=OWN,
        source=OWN,
        licence="not stated",
        normalisation=entry.normalisation,
        labels=id_,
        states=tuple(states),  # type: ignore[arg-type]  # of four axes
        format=format_,  # type: ignore[arg-type]  # one of FORMATS
        said_shift=shift,
        file=str(find_file(path).absolute()),
        sha256=file.sha256,
        params=sum(parameter.numel() for parameter in net.parameters()),
        gmacs=round(count(entry).gmacs, 9),
    )


def _registry(zoo: Registry, entry: Entry, like: Entry, names: tuple[str, ...] | None) -> dict[str, Any]:
    """Return a registry of `entry` alone, in plain values: what is as it would be anyway is left out."""
    normalisation = zoo.normalisations[entry.normalisation]
    named = msgspec.structs.replace(entry, normalisation=entry.id)
    usual = {field.encode_name: field.default for field in msgspec.structs.fields(Entry)}
    return {
        "models": [
            {key: value for key, value in msgspec.to_builtins(named).items() if value not in (usual[key], [], None)}
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
