"""Reading of registries: one file over another, and the checks that a type cannot express."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from tsmzoo.errors import RegistryError
from tsmzoo.registry import compiled, paths
from tsmzoo.registry.schema import OWN, SHIFT_PLACES, Backbone, Entry, Family, LabelMap, Pinned, Registry
from tsmzoo.text import of_error

_MAX_LABEL_BYTES = 16 * 2**20
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
#: Endings that `download` gives to what it keeps beside a file.
_COMPANIONS = (".part", ".part.json", ".part.hub", ".sha256", ".lock", ".bad", ".bad.txt")
#: What `tsmzoo registry check` counts, and what stands in its place until then.
_UNCOUNTED = {"params": 1, "gmacs": 0.0}


def load(*extra: Path | None, incomplete: bool = False) -> Registry:
    """Read the project's registry, and each of `extra` but None on top of it; a later id replaces an earlier one.

    `incomplete` accepts entries without `params`, `gmacs` or `states`, which are then 1, 0 and none.
    Raises RegistryError naming file, entry and key.

    >>> load().find("tsm_r50_sthv2").frames
    8
    """
    own = paths.DATA / "registry.yaml"

    def read() -> Registry:
        return _on_top(Registry(), own, paths.PACKAGE, incomplete=incomplete)

    # No copy is kept of an incomplete registry; `registry check` may be asked about the project's own.
    merged = read() if incomplete else compiled.load(own, Registry, read)
    for path in extra:
        if path is not None:
            merged = _on_top(merged, path, path.parent, incomplete=incomplete)
    return merged


def _on_top(zoo: Registry, path: Path, folder: Path, *, incomplete: bool = False) -> Registry:
    """Return `zoo` with the registry at `path` on top; the files of its entries are in `folder`."""
    layer = _read(path, folder, zoo.labels, incomplete=incomplete)
    merged = Registry(
        models=tuple({entry.id: entry for entry in (*zoo.models, *layer.models)}.values()),
        aliases=zoo.aliases | layer.aliases,
        sources=zoo.sources | layer.sources,
        mirrors=(*layer.mirrors, *zoo.mirrors),
        normalisations=zoo.normalisations | layer.normalisations,
        labels=zoo.labels | layer.labels,
    )
    merged = msgspec.structs.replace(
        merged,
        models=tuple(_with_mirrors(merged, _pinned(entry, layer.pins, path)) for entry in merged.models),
    )
    if unknown := next((name for name in layer.pins if name not in merged.by_id), None):
        raise RegistryError(f"{path}: pins {unknown!r}, which no registry has; add the registry that has it")
    _check(merged, path, incomplete=incomplete)
    return merged


def _pinned(entry: Entry, pins: dict[str, Pinned], path: Path) -> Entry:
    """Return `entry` with the whole digest of its file. Raises RegistryError if another was published."""
    pin = pins.get(entry.id)
    if pin is None:
        return entry
    published = entry.sha256 or entry.sha256_prefix or ""
    if not entry.has_weights or not pin.sha256.startswith(published):
        why = f"the published sha256 begins with {published}" if entry.has_weights else "no weights were published"
        raise RegistryError(f"{path}: pins {entry.id!r} to {pin.sha256}, but {why}")
    if unknown := next((name for name in pin.beside if name not in entry.beside), None):
        raise RegistryError(f"{path}: pins {unknown!r} of {entry.id!r}, which has no such file")
    return msgspec.structs.replace(entry, sha256=pin.sha256, pinned=pin)


def _with_mirrors(zoo: Registry, entry: Entry) -> Entry:
    """Return `entry` with the addresses that the mirrors of `zoo` give, after its own."""
    mirrors = zoo.mirrored(entry.urls)
    if not mirrors:
        return entry
    return msgspec.structs.replace(entry, urls=(*(url for url in entry.urls if url not in mirrors), *mirrors))


def with_entry(zoo: Registry, other: Registry, model: str) -> Registry:
    """Return `zoo` with the entry of `other` that has this id, and what it refers to by key."""
    entry = other.by_id[model]
    return msgspec.structs.replace(
        zoo,
        models=(*(each for each in zoo.models if each.id != model), entry),
        aliases={alias: target for alias, target in zoo.aliases.items() if alias != model},
        sources=zoo.sources | {entry.source: other.sources[entry.source]},
        normalisations=zoo.normalisations | {entry.normalisation: other.normalisations[entry.normalisation]},
        labels=zoo.labels | {entry.labels: other.labels[entry.labels]},
    )


def with_classes(zoo: Registry, model: str, classes: int | None, names: tuple[str, ...] | None) -> Registry:
    """Return `zoo` with a classifier of so many classes, or of those called `names`, for `model`.

    What was published of the model is not of these. Raises RegistryError where nothing is called so, or the two differ.
    """
    entry = zoo.find(model)
    count = classes or (len(names) if names is not None else entry.classes)
    if names is not None and len(names) != count:
        raise RegistryError(f"{len(names)} labels are not those of {count} classes; give as many names as classes")
    if (count, names) in ((entry.classes, None), (entry.classes, zoo.label_names(entry))):
        return zoo
    key = f"{entry.id}-own"
    own = msgspec.structs.replace(
        entry,
        classes=count,
        labels=key,
        dataset=OWN,
        results=(),
        published_gmacs=None,
        published_mparams=None,
        recommended=False,
    )
    return msgspec.structs.replace(
        zoo,
        models=tuple(own if each is entry else each for each in zoo.models),
        labels=zoo.labels | {key: LabelMap(classes=count, order="as given", names=names)},
    )


def read_labels(path: Path) -> tuple[str, ...]:
    """Return the names of classes in a file, one a line, in the order of the logits.

    Raises RegistryError where it cannot be read, a line is empty or a name stands there twice.
    """
    from tsmzoo.system import files

    try:
        text = files.read_text(path, _MAX_LABEL_BYTES).removeprefix("\ufeff").rstrip()
    except OSError as error:
        raise RegistryError(f"{path}: cannot be read ({error.strerror}); give a file of names, one a line") from None
    except UnicodeDecodeError:
        raise RegistryError(f"{path}: is not UTF-8 text; give a file of names, one a line") from None
    names = [line.strip() for line in text.splitlines()]
    if not names:
        raise RegistryError(f"{path}: is empty; give the names of the classes, one a line")
    seen: set[str] = set()
    for number, name in enumerate(names, 1):
        if not name or _CONTROL.search(name):
            raise RegistryError(f"{path}: line {number} is no name; give the names of the classes, one a line")
        if name in seen:
            raise RegistryError(f"{path}: line {number} names {name[:60]!r} again; a class has a name of its own")
        seen.add(name)
    return tuple(names)


def document(path: Path) -> dict[str, Any]:
    """Return a registry file in plain values, as it stands there; `models` is a list.

    Raises RegistryError for what is no registry at all.
    """
    import yaml

    from tsmzoo.registry.bounded_yaml import MAX_BYTES, parse
    from tsmzoo.system import files

    try:
        data = parse(files.read(path, MAX_BYTES))
    except OSError as error:
        raise RegistryError(f"{path}: cannot be read ({error.strerror}); give a registry file") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that is none
        raise RegistryError(f"{path}: is not YAML ({of_error(error)})") from None
    if not isinstance(data, dict):
        raise RegistryError(f"{path}: a registry is a mapping with `models:`; see the project's own registry.yaml")
    if not isinstance(models := data.get("models") or [], list):
        raise RegistryError(f"{path}: `models` must be a list of entries")
    return data | {"models": models}


def _read(path: Path, folder: Path, labels: dict[str, LabelMap], *, incomplete: bool) -> Registry:
    """Read one file on top of a registry of these `labels`; its entries' own files lie in `folder`."""
    data = document(path)
    models = data.pop("models")
    rest: Registry = _convert(data, Registry, str(path))
    labels = labels | rest.labels
    entries = tuple(
        _entry(item, labels, path, f"{path}: entry {_title(item, number)}", incomplete=incomplete)
        for number, item in enumerate(models)
    )
    times = Counter(entry.id for entry in entries)
    if twice := sorted(name for name in times if times[name] > 1):
        raise RegistryError(f"{path}: entry {twice[0]!r} stands there twice; ids must be unique")
    located = (
        entry if entry.file is None else msgspec.structs.replace(entry, file=str(folder / entry.file))
        for entry in entries
    )
    return msgspec.structs.replace(rest, models=tuple(located))


def _entry(item: Any, labels: dict[str, LabelMap], path: Path, where: str, *, incomplete: bool) -> Entry:
    """Return the entry that `item` is, with the classes of its labels."""
    missing = []
    if isinstance(item, dict):
        if "classes" not in item and isinstance(key := item.get("labels"), str):
            if key not in labels:
                raise RegistryError(f"{where}: {_undefined('labels', key, labels)}")
            item = item | {"classes": labels[key].classes}
        missing = [f"`{key}`" for key in _UNCOUNTED if key not in item]
        item = _UNCOUNTED | item
    entry: Entry = _convert(item, Entry, where)
    if missing and not incomplete:
        raise RegistryError(f"{where}: lacks {' and '.join(missing)}; `tsmzoo registry check {path}` counts them")
    return entry


def _undefined(key: str, value: str, table: dict[str, Any]) -> str:
    return f"{key} {value!r} is not defined; known are {', '.join(table)}"


def _title(item: Any, number: int) -> str:
    named = isinstance(item, dict) and isinstance(item.get("id"), str)
    return repr(item["id"]) if named else f"number {number + 1}"


def _convert(data: Any, kind: type[Any], where: str) -> Any:
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        raise RegistryError(f"{where}: {error}") from None


def _check(registry: Registry, path: Path, *, incomplete: bool) -> None:
    """Raise RegistryError for what a type cannot say: that every key refers to something, and that values fit."""
    protocols = {recipe.stem for recipe in (paths.DATA / "recipes" / "eval").glob("*.yaml")}
    for entry in registry.models:
        if fault := next(_faults(registry, entry, protocols, incomplete=incomplete), None):
            raise RegistryError(f"{path}: entry {entry.id!r}: {fault}")
    for alias, target in registry.aliases.items():
        if target not in registry.by_id:
            raise RegistryError(f"{path}: alias {alias!r} points to {target!r}, which is no entry")
        if alias in registry.by_id:
            raise RegistryError(f"{path}: alias {alias!r} is an id already")


def _family_of(backbone: Backbone) -> Family:
    """Return the family that a backbone belongs to; `tsn` for those of frames, which `tsm` shifts."""
    own: tuple[Family, ...] = ("i3d", "x3d", "movinet")
    return next((family for family in own if family in backbone), "tsn")


def _faults(registry: Registry, entry: Entry, protocols: set[str], *, incomplete: bool) -> Iterator[str]:
    """Yield what is wrong with an entry; only the first counts, since what follows relies on what was checked."""
    for key, table in (
        ("source", registry.sources),
        ("normalisation", registry.normalisations),
        ("labels", registry.labels),
    ):
        if (value := getattr(entry, key)) not in table:
            yield _undefined(key, value, table)
    for result in entry.results:
        if result.protocol is not None and result.protocol not in protocols:
            yield f"protocol {result.protocol!r} is not in recipes/eval"
    normalisation = registry.normalisations[entry.normalisation]
    if not len(normalisation.mean) == len(normalisation.std) == entry.channels or 0 in normalisation.std:
        yield f"normalisation {entry.normalisation!r} is not for {entry.channels} channels"
    yield from _faults_of_files(entry)
    if entry.too_large:
        yield entry.too_large
    if entry.width != 1 and entry.backbone != "mobilenet_v2":
        yield "width is for backbone mobilenet_v2"
    if (entry.family, family := _family_of(entry.backbone)) != ("tsm", "tsn") and entry.family != family:
        yield f"backbone {entry.backbone} is not for family {entry.family}"
    if entry.non_local and not entry.backbone.startswith(("resnet", "resnext")):
        yield f"non_local is for the ResNets, not for backbone {entry.backbone}"
    yield from _faults_of_shift(entry)
    if entry.family != "tsm" and entry.backbone.endswith("_stream") != (entry.mode == "online"):
        yield f"backbone {entry.backbone} is not for mode {entry.mode}"
    if entry.mode == "online" and (entry.frames != 1 or not (entry.states or incomplete)):
        yield "mode online goes with frames 1 and states"
    if (classes := registry.labels[entry.labels].classes) != entry.classes:
        yield f"classes {entry.classes} do not fit labels {entry.labels!r} ({classes})"


def _faults_of_files(entry: Entry) -> Iterator[str]:
    if entry.urls and entry.file is not None:
        yield "give either the urls of its file or, beside the registry, a file"
    if not entry.has_weights and (
        entry.format != "tsmzoo" or entry.sha256 or entry.sha256_prefix or entry.git_blob_sha1
    ):
        yield (
            "give the urls of its file or, beside the registry, a file; of a model without published weights, format "
            "tsmzoo and no digest"
        )
    for url in entry.urls:
        try:
            parts = urlsplit(url)
            _ = parts.port
        except ValueError:  # which names what may be a part of a password
            yield f"{'…' if '@' in url else repr(url)} is no address: its host or port is not well formed"
            continue
        if "@" in parts.netloc:  # contracts and pages of results hold the addresses of a registry
            yield (
                "an address has a user name or password, which others would read; leave it out, and give the whole "
                "address with --source or TSMZOO_MIRROR"
            )
    names = (entry.filename, *entry.beside)
    for name in names:
        if name is not None and name.endswith(_COMPANIONS):
            yield f"a file cannot be called {name!r}, as notes on a download are"
    if entry.beside and not entry.urls:
        yield "beside names files that are published with the one of urls"
    if len(set(names)) < len(names):
        yield "beside names a file twice, or that of urls"
    if entry.format == "torchvision":
        yield "format torchvision is an image network's, which is no model of videos"
    if entry.file is not None and entry.sha256 is None:
        yield "a file beside the registry needs its sha256"


def _faults_of_shift(entry: Entry) -> Iterator[str]:
    if entry.family != "tsm":
        if (entry.shift_div, entry.shift_place, entry.shift_frames, entry.said_shift) != (8, "residual", None, None):
            yield "shift, shift_div, shift_place and shift_frames are for family tsm"
        return
    if entry.said_shift == "uni" and entry.mode == "offline":
        yield "shift uni is for mode online: a clip's frames are shifted both ways"
    places = SHIFT_PLACES.get(entry.backbone)
    if places is None:
        yield f"backbone {entry.backbone} has no shift; family tsm takes one of {', '.join(SHIFT_PLACES)}"
    elif entry.shift_place not in places:
        yield f"backbone {entry.backbone} is shifted {' or '.join(places)} alone; set shift_place"
    if entry.shift_frames and (entry.mode == "online" or entry.frames % entry.shift_frames):
        yield f"shift_frames {entry.shift_frames} does not divide the frames of a clip ({entry.frames})"
