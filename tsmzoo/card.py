"""What is told of one model (`info`) and of one exported file (`export`, `verify`): documents, and their text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tsmzoo import paths, recipe
from tsmzoo.registry import Entry, Registry

if TYPE_CHECKING:
    from tsmzoo.artifact import Contract, Verification


def card(zoo: Registry, entry: Entry) -> dict[str, Any]:
    """Return all that the registry knows of `entry`."""
    normalisation, labels = zoo.normalisations[entry.normalisation], zoo.label_names(entry)
    document: dict[str, Any] = msgspec.to_builtins(entry)
    document["aliases"] = zoo.names(entry)
    document["shift"] = entry.shift
    document["mparams"] = round(entry.mparams, 3)
    document["source"] = msgspec.to_builtins(zoo.sources[entry.source])
    document["results"] = [
        msgspec.to_builtins(result)
        | {"measured": msgspec.to_builtins(recipe.protocol(result.protocol)) if result.protocol else None}
        for result in entry.results
    ]
    document["input"] = {
        "shape": [entry.frames, entry.channels, entry.size, entry.size],
        "axes": "T,C,H,W",
        "order": normalisation.order,
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
    path = paths.local_path(entry)
    document["file"] = {"path": str(path), "cached": paths.is_cached(entry), "max_bytes": entry.max_bytes}
    return document


def text(document: dict[str, Any]) -> str:
    """Return a card to read."""
    d = document
    aliases = f" ({', '.join(d['aliases'])})" if d["aliases"] else ""
    shift = f"{d['shift']} shift" if d["shift"] else "no shift"
    if d["non_local"]:
        shift += f", non-local blocks ({d['non_local']})"
    lines = [
        f"{d['id']}{aliases}",
        f"  {d['family'].upper()}, {d['mode']}, {d['backbone']}, {shift}; {d['modality']} on {d['dataset']}",
        "",
    ]
    rows = [
        ("source", f"{d['source']['name']}, {d['source']['repository']} at {d['source']['commit'][:10]}"),
        ("cite", d["source"]["citation"]),
        ("licence", f"{d['licence']} (of the repository; none is stated for the weights)"),
        (
            "cost",
            f"{d['gmacs']:.2f} GMACs a {'frame' if d['mode'] == 'online' else 'clip'}, {d['mparams']:.2f} M parameters",
        ),
    ]
    if d["published_gmacs"]:
        rows.append(("published", f"{d['published_gmacs']['value']} GMACs: {d['published_gmacs']['basis']}"))
    rows += [
        (
            "input",
            f"{' x '.join(map(str, d['input']['shape']))} ({d['input']['axes']}), "
            f"{d['input']['order']}, {d['sampling']} sampling",
        ),
        ("mean, std", f"{_numbers(d['input']['mean'])}; {_numbers(d['input']['std'])} on 0…1"),
    ]
    if d["states"]:
        shapes = " ".join("x".join(map(str, shape)) for shape in d["states"])
        rows.append(("states", f"{len(d['states'])}, zeros at first: {shapes}"))
    names = d["labels"]["names"]
    sample = f": {', '.join(names[:3])}, …" if names else "; the names are not at hand"
    rows.append(("labels", f"{d['labels']['classes']} ({d['labels']['map']}, {d['labels']['order']}){sample}"))
    rows += [("file", url) for url in d["urls"]]
    rows.append(("format", d["format"]))
    digest = d["sha256"] or (f"{d['sha256_prefix']}…" if d["sha256_prefix"] else "unknown, recorded on first download")
    rows += [("sha256", digest), ("cached", d["file"]["path"] if d["file"]["cached"] else "no")]
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
            lines.append(
                f"      {measured['sampling']}; {measured['resize']}; {measured['crops']}; "
                f"{measured['views']} views; {measured['aggregation']}"
            )
        lines.append(f"      from {result['source']}")
    for heading, key in (("doubtful", "doubt"), ("notes", "notes")):
        if d[key]:
            lines += ["", f"  {heading}", *(f"    - {line}" for line in d[key])]
    return "\n".join(lines)


def _numbers(values: list[float]) -> str:
    return f"{values[0]:g}" if len(set(values)) == 1 else " ".join(f"{value:g}" for value in values)


def report(path: Path, contract: Contract, verification: Verification, seconds: float) -> dict[str, Any]:
    """Return what `export` and `verify` print as JSON; `passed` is null where nothing could run the file."""
    return {
        "artifact": str(path),
        "sha256": contract.sha256,
        "bytes": contract.bytes,
        "seconds": round(seconds, 2),
        "max_rel_error": verification.max_rel_error,
        "steps": verification.steps,
        "passed": None if verification.status == "not run" else verification.status == "passed",
        "model": contract.model,
        "format": contract.format,
        "precision": contract.precision,
        "weights": contract.weights,
        "verification": msgspec.to_builtins(verification),
    }


def report_text(path: Path, contract: Contract, verification: Verification, seconds: float) -> str:
    """Return the same to read."""
    v = verification
    default = " (Core ML's own default)" if (contract.format, contract.precision) == ("coreml", "fp16") else ""
    weights = f"{contract.weights} weights"
    if contract.checkpoint:
        weights += f", sha256 {contract.checkpoint.sha256[:12]}…"
    lines = [
        f"{path}  {(contract.bytes or 0) / 1e6:.2f} MB  "
        f"{contract.format} {contract.precision}{default}, {contract.mode}, {weights}"
    ]
    for tensors, arrow in ((contract.inputs, "in "), (contract.outputs, "out")):
        shown = [f"{t.name} {'x'.join(map(str, t.shape))} {t.dtype}" for t in tensors[:2]]
        if len(tensors) > 2:
            shown.append(f"… {tensors[-1].name}")
        lines.append(f"  {arrow}  {', '.join(shown)}")
    if v.status == "not run":
        lines.append(f"  NOT RUN: {v.reason}")
    else:
        lines.append(
            f"  {v.status.upper()}: largest error {v.max_rel_error:.1e} of an output's range ({v.worst}), "
            f"allowed {v.tolerance:.0e}; same first class in {v.top1_agreement:.0%}"
        )
        cases = "; ".join(
            f"{case.name}, {case.steps} {_plural(contract, case.steps)}: {case.max_rel_error:.1e}" for case in v.cases
        )
        lines.append(f"  {v.runtime} against torch: {cases}")
    lines += [f"  structure: {', '.join(v.structure)}", f"  {seconds:.1f} s"]
    return "\n".join(lines)


def _plural(contract: Contract, count: int) -> str:
    noun = "clip" if contract.mode == "offline" else "frame"
    return noun if count == 1 else noun + "s"
