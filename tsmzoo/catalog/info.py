"""What `info` tells of one model: a document, and its text."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec

from tsmzoo.catalog.listing import gmacs
from tsmzoo.errors import DownloadError
from tsmzoo.registry import Entry, Registry, recipes
from tsmzoo.text import joined
from tsmzoo.weights import cache


def card(zoo: Registry, entry: Entry) -> dict[str, Any]:
    """Return all that the registry knows of `entry`."""
    normalisation, labels = zoo.normalisations[entry.normalisation], zoo.label_names(entry)
    document: dict[str, Any] = msgspec.to_builtins(entry)
    document["aliases"] = zoo.names(entry)
    document["shift"] = entry.shift
    document["mparams"] = round(entry.mparams, 3)
    document["source"] = msgspec.to_builtins(zoo.sources[entry.source])
    document["results"] = [msgspec.to_builtins(result) | _measured(entry, result.protocol) for result in entry.results]
    document["input"] = {
        "shape": [entry.frames, entry.channels, entry.size, entry.size],
        "axes": "T,C,H,W",
        "order": normalisation.order if entry.modality == "rgb" else entry.flow_images,
        "mean": normalisation.mean,
        "std": normalisation.std,
        "about": normalisation.about,
    }
    document["labels"] = {
        "map": entry.labels,
        "order": zoo.labels[entry.labels].order,
        "classes": entry.classes,
        "names": labels,
    }
    path = None
    with suppress(DownloadError):  # where there is no cache
        path = cache.local_path(entry)
    document["file"] = {
        "path": None if path is None else str(path),
        "cached": cache.is_cached(entry),
        "max_bytes": entry.max_bytes,
    }
    return document


def _measured(entry: Entry, protocol: str | None) -> dict[str, str | None]:
    """Return in words how a figure was measured, and what one should know of that."""
    if protocol is None:
        return {"measured": None, "note": None}
    followed = recipes.protocol(protocol)
    return {"measured": followed.text(entry.frames), "note": followed.note}


def text(document: dict[str, Any]) -> str:
    """Return a card to read."""
    d = document
    aliases = f" ({', '.join(d['aliases'])})" if d["aliases"] else ""
    shift = f"{d['shift']} shift" if d["shift"] else "no shift"
    if d["shift"]:
        shift += f" of 1/{d['shift_div']}" if d["shift_div"] != 8 else ""
        shift += " in place" if d["shift_place"] == "in-place" else ""
        shift += f" among {d['shift_frames']} frames" if d["shift_frames"] else ""
    if d["non_local"]:
        shift += f", non-local blocks ({d['non_local']})"
    lines = [
        f"{d['id']}{aliases}",
        f"  {d['family'].upper()}, {d['mode']}, {d['backbone']}, {shift}; {d['modality']} on {d['dataset']}",
        "",
    ]
    publisher = d["source"]["name"]
    if d["source"]["repository"]:
        publisher += f", {d['source']['repository']}"
    if d["source"]["commit"]:
        publisher += f" at {d['source']['commit'][:10]}"
    unit = "frame" if d["mode"] == "online" else "clip"
    stride = f", one frame of {d['stride']}" if d["stride"] and d["stride"] > 1 else ""
    rate = f" at {d['target_fps']:g} frames a second" if d["target_fps"] else ""
    rows = [
        ("source", publisher),
        ("cite", d["source"]["citation"]),
        ("licence", f"{d['licence']} ({note})" if (note := d["source"]["licence_note"]) else d["licence"]),
        (
            "cost",
            f"{gmacs(d['gmacs'])} GMACs a {unit}, {d['mparams']:.2f} M parameters",
        ),
    ]
    if d["published_gmacs"]:
        rows.append(("published", f"{d['published_gmacs']['value']} GMACs: {d['published_gmacs']['basis']}"))
    rows += [
        (
            "input",
            f"{' x '.join(map(str, d['input']['shape']))} ({d['input']['axes']}), "
            f"{d['input']['order']}, {d['sampling']} sampling{stride}{rate}",
        ),
        ("mean, std", f"{_numbers(d['input']['mean'])}; {_numbers(d['input']['std'])} on 0…1"),
    ]
    if d["states"]:
        shapes = " ".join("x".join(map(str, shape)) for shape in d["states"])
        rows.append(("states", f"{len(d['states'])}, zeros at first: {shapes}"))
    names = d["labels"]["names"]
    sample = f": {', '.join(names[:3])}, …" if names else "; the names are not at hand"
    rows.append(("labels", f"{d['labels']['classes']} ({d['labels']['map']}, {d['labels']['order']}){sample}"))
    rows += _file_rows(d)
    lines += [f"  {key:<10} {value}" for key, value in rows]
    if d["results"]:
        lines += ["", "  published accuracy"]
    for result in d["results"]:
        figures = ", ".join(
            f"{name} {result[key]}"
            for key, name in (("top1", "top-1"), ("top5", "top-5"), ("map", "mAP"))
            if result[key]
        )
        lines.append(
            f"    {figures}: {result['protocol'] or 'no protocol stated'} ({result['as_published'] or 'as listed'})"
        )
        if measured := result["measured"]:
            lines.append(f"      {measured}")
        if note := result["note"]:
            lines.append(f"      note: {note}")
        lines.append(f"      from {result['source']}")
    for heading, key in (("doubtful", "doubt"), ("notes", "notes")):
        if d[key]:
            lines += ["", f"  {heading}", *(f"    - {line}" for line in d[key])]
    return joined(lines)


def _file_rows(d: dict[str, Any]) -> list[tuple[str, str]]:
    if not d["urls"] and d["file"]["path"] is None:
        return [("file", "none: no weights were published; train it, or give --weights FILE or random")]
    rows = [("file", url) for url in d["urls"]] or [("file", d["file"]["path"])]
    rows += [("beside it", name) for name in d["beside"]]
    rows.append(("format", d["format"]))
    if d["git_blob_sha1"]:
        rows.append(("git blob", d["git_blob_sha1"]))
    if d["sha256"] or d["sha256_prefix"]:
        rows.append(("sha256", d["sha256"] or f"{d['sha256_prefix']}…"))
    elif not d["git_blob_sha1"]:
        rows.append(("sha256", "unknown, recorded on first download"))
    return [*rows, ("cached", d["file"]["path"] if d["file"]["cached"] else "no")]


def _numbers(values: list[float]) -> str:
    return f"{values[0]:g}" if len(set(values)) == 1 else " ".join(f"{value:g}" for value in values)
