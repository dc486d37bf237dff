"""Everything about one model: the result of `info`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec

from tsmzoo.catalog.listing import gmacs
from tsmzoo.errors import DownloadError
from tsmzoo.registry import FAMILIES, Address, Entry, Registry, Result, Source, recipes
from tsmzoo.text import joined
from tsmzoo.weights import cache

_PINS: dict[cache.Pin, str] = {
    "sha256": "the file must have it",
    "git_blob": "the file must have it, a hash of its size and content",
    "prefix": "weak, since another file can be made to match it",
    "recorded": "the sha256 of the first download on this machine",
    "none": "its sha256 is unknown, recorded on first download",
}


class PublishedResult(Result, frozen=True, kw_only=True):
    """A published accuracy, and the protocol in words."""

    #: How it was measured; null if no protocol was stated.
    measured: str | None
    #: Caveats of the protocol.
    note: str | None


class Input(msgspec.Struct, frozen=True, kw_only=True):
    """The input of a model."""

    #: T, C, H, W.
    shape: list[int]
    axes: str
    #: The order of the channels, or what a frame of optical flow consists of.
    order: str
    #: Mean of each channel, for values in 0…1.
    mean: tuple[float, ...]
    #: Standard deviation of each channel, likewise.
    std: tuple[float, ...]
    #: Where mean and std are from.
    about: str


class Labels(msgspec.Struct, frozen=True, kw_only=True):
    """The classes of a model."""

    #: Key of the label map in the registry.
    map: str
    #: What the order of the classes follows, in words.
    order: str
    classes: int
    #: In the order of the logits; null if the names are not part of tsmzoo.
    names: tuple[str, ...] | None


class WeightsFile(msgspec.Struct, frozen=True, kw_only=True):
    """Weights on this machine."""

    #: Where the file is, or will be after `download`; null if there is none, or no cache.
    path: str | None
    cached: bool
    #: Larger downloads are refused.
    max_bytes: int


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A model of the registry, with all that its keys refer to."""

    entry: Entry
    aliases: list[str]
    #: `unidirectional`, `bidirectional`, or null without a shift.
    shift: str | None
    #: Parameters, in millions.
    mparams: float
    source: Source
    #: Where the weights can be had, in the order in which the addresses are tried; empty for a bundled model.
    addresses: tuple[Address, ...]
    #: What the weights are held to; see `list`.
    pin: cache.Pin
    results: list[PublishedResult]
    input: Input
    labels: Labels
    file: WeightsFile

    def __getattr__(self, name: str) -> Any:
        """Return the entry's attribute, if this struct has none of the name: the keys of the document."""
        return getattr(self.entry, name)

    def document(self) -> dict[str, Any]:
        """Return the JSON document: the keys of the entry, with those of this struct in place of the same ones."""
        own: dict[str, Any] = msgspec.to_builtins(self)
        return {**own.pop("entry"), **own}


def info(zoo: Registry, entry: Entry) -> ModelInfo:
    """Return all that the registry knows about `entry`.

    >>> from tsmzoo import registry
    >>> zoo = registry.load()
    >>> info(zoo, zoo.find("tsm_r50_sthv2")).source.name
    'MIT HAN Lab'
    """
    normalisation = zoo.normalisations[entry.normalisation]
    path = None
    with suppress(DownloadError):  # without a cache
        path = cache.local_path(entry)
    return ModelInfo(
        entry=entry,
        aliases=zoo.names(entry),
        shift=entry.shift,
        mparams=round(entry.mparams, 3),
        source=zoo.sources[entry.source],
        addresses=zoo.addresses(entry),
        pin=cache.pin(entry),
        results=[_result(entry, result) for result in entry.results],
        input=Input(
            shape=[entry.frames, entry.channels, entry.size, entry.size],
            axes="T,C,H,W",
            order=normalisation.order if entry.modality == "rgb" else entry.flow_images,
            mean=normalisation.mean,
            std=normalisation.std,
            about=normalisation.about,
        ),
        labels=Labels(
            map=entry.labels, order=zoo.labels[entry.labels].order, classes=entry.classes, names=zoo.label_names(entry)
        ),
        file=WeightsFile(
            path=None if path is None else str(path), cached=cache.is_cached(entry), max_bytes=entry.max_bytes
        ),
    )


def _result(entry: Entry, result: Result) -> PublishedResult:
    protocol = None if result.protocol is None else recipes.protocol(result.protocol)
    return PublishedResult(
        **msgspec.structs.asdict(result),
        measured=protocol.text(entry.frames) if protocol else None,
        note=protocol.note if protocol else None,
    )


def text(info: ModelInfo) -> str:
    """Return the same as text."""
    entry = info.entry
    aliases = f" ({', '.join(info.aliases)})" if info.aliases else ""
    lines = [
        f"{entry.id}{aliases}",
        f"  {FAMILIES[entry.family]}, {entry.mode}, {entry.backbone}, {_shift(info)}; {entry.modality} on "
        f"{entry.dataset}",
        "",
    ]
    lines += [f"  {key:<10} {value}" for key, value in _rows(info)]
    if info.results:
        lines += ["", "  published accuracy"]
    for result in info.results:
        figures = ", ".join(
            f"{name} {value}"
            for name, value in (("top-1", result.top1), ("top-5", result.top5), ("mAP", result.map))
            if value
        )
        lines.append(f"    {figures}: {result.protocol or 'no protocol stated'} ({result.as_published or 'as listed'})")
        if result.measured:
            lines.append(f"      {result.measured}")
        if result.note:
            lines.append(f"      note: {result.note}")
        lines.append(f"      from {result.source}")
    for heading, remarks in (("doubtful", entry.doubt), ("notes", entry.notes)):
        if remarks:
            lines += ["", f"  {heading}", *(f"    - {line}" for line in remarks)]
    return joined(lines)


def _shift(info: ModelInfo) -> str:
    entry = info.entry
    words = "no shift"
    if info.shift:
        words = f"{info.shift} shift"
        words += f" of 1/{entry.shift_div}" if entry.shift_div != 8 else ""
        words += " in place" if entry.shift_place == "in-place" else ""
        words += f" among {entry.shift_frames} frames" if entry.shift_frames else ""
    return words + (f", non-local blocks ({entry.non_local})" if entry.non_local else "")


def _rows(info: ModelInfo) -> list[tuple[str, str]]:
    entry, source, labels = info.entry, info.source, info.labels
    publisher = source.name
    publisher += f", {source.repository}" if source.repository else ""
    publisher += f" at {source.commit[:10]}" if source.commit else ""
    unit = "frame" if entry.mode == "online" else "clip"
    stride = f", one frame of {entry.stride}" if entry.stride and entry.stride > 1 else ""
    rate = f" at {entry.target_fps:g} frames a second" if entry.target_fps else ""
    rows = [
        ("source", publisher),
        ("cite", source.citation),
        ("licence", f"{entry.licence} ({note})" if (note := source.licence_note) else entry.licence),
        ("cost", f"{gmacs(entry.gmacs)} GMACs a {unit}, {info.mparams:.2f} M parameters"),
    ]
    if published := entry.published_gmacs:
        rows.append(("published", f"{published.value} GMACs: {published.basis}"))
    rows += [
        (
            "input",
            f"{' x '.join(map(str, info.input.shape))} ({info.input.axes}), "
            f"{info.input.order}, {entry.sampling} sampling{stride}{rate}",
        ),
        ("mean, std", f"{_numbers(info.input.mean)}; {_numbers(info.input.std)} on 0…1"),
    ]
    if entry.states:
        shapes = " ".join("x".join(map(str, shape)) for shape in entry.states)
        megabytes = 4 * sum(math.prod(shape) for shape in entry.states) / 1e6
        rows.append(("states", f"{len(entry.states)}, {megabytes:.3g} MB in fp32, zeros at first: {shapes}"))
    sample = f": {', '.join(labels.names[:3])}, …" if labels.names else "; the names are not at hand"
    rows.append(("labels", f"{labels.classes} ({labels.map}, {labels.order}){sample}"))
    return rows + _file_rows(info)


def _file_rows(info: ModelInfo) -> list[tuple[str, str]]:
    entry, file = info.entry, info.file
    if not entry.has_weights:
        return [("file", "none: no weights were published; train it, or give --weights FILE or random")]
    rows = [("file", _address(address)) for address in info.addresses] or [("file", str(file.path))]
    rows += [("beside it", name) for name in entry.beside]
    rows.append(("format", entry.format))
    if entry.git_blob_sha1:
        rows.append(("git blob", entry.git_blob_sha1))
    if entry.sha256 or entry.sha256_prefix:
        rows.append(("sha256", entry.sha256 or f"{entry.sha256_prefix}…"))
    rows.append(("pin", f"{info.pin}: {_PINS[info.pin]}"))
    return [*rows, ("cached", str(file.path) if file.cached else "no")]


def _address(address: Address) -> str:
    remarks = "; ".join(filter(None, ("" if address.tested else "untested", address.note)))
    return f"{address.url} ({remarks})" if remarks else address.url


def _numbers(values: Sequence[float]) -> str:
    return f"{values[0]:g}" if len(set(values)) == 1 else " ".join(f"{value:g}" for value in values)
