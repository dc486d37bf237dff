"""The registry: every published checkpoint, bound to its architecture, labels, input and figures.

`registry.yaml` is data; this module is its schema, and the ways to find an entry in it.
It must stay quick to import: `tsmzoo list` answers before torch could be loaded.
"""

from __future__ import annotations

import fnmatch
import re
from collections import Counter
from functools import cached_property
from math import isqrt
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec
import yaml

from tsmzoo import paths
from tsmzoo.errors import RegistryError
from tsmzoo.parsing import MOST, parse
from tsmzoo.system import files
from tsmzoo.text import of_error

Family = Literal["tsn", "tsm", "i3d"]
Mode = Literal["offline", "online"]
Modality = Literal["rgb", "flow"]
Backbone = Literal[
    "resnet18",
    "resnet50",
    "resnet101",
    "resnext101_32x4d",
    "mobilenet_v2",
    "mobileone_s4",
    "bninception",
    "densenet161",
    "inception_v1_i3d",
    "resnet50_i3d",
    "resnet50_i3d_8x8",
    "resnet50_i3d_heavy",
    "resnet50_i3d_3x3x3",
    "resnet50_i3d_replace",
]
NonLocal = Literal["embedded_gaussian", "dot_product", "gaussian"]
#: Where the shift may stand in a backbone of TSM: in the residual branch, or in front of the whole block.
SHIFT_PLACES: dict[Backbone, tuple[Literal["residual", "in-place"], ...]] = {
    "resnet18": ("residual", "in-place"),
    "resnet50": ("residual", "in-place"),
    "resnet101": ("residual", "in-place"),
    "resnext101_32x4d": ("residual", "in-place"),
    "mobilenet_v2": ("residual", "in-place"),
    "mobileone_s4": ("in-place",),
    "bninception": ("in-place",),
}
#: The directions of a shift as people give them (`--shift`, a registry's `shift`), and as they are told.
ShiftName = Literal["uni", "bi"]
DIRECTIONS: dict[ShiftName, Literal["unidirectional", "bidirectional"]] = {
    "uni": "unidirectional",
    "bi": "bidirectional",
}
#: `torchvision` is an image network's: a training may start from it.
WeightsFormat = Literal[
    "mit-tsm",
    "mit-tsm-online",
    "mmaction2",
    "piergiaj-i3d",
    "hassony2-i3d",
    "deepmind-tf",
    "pytorchvideo",
    "torchvision",
    "tsmzoo",
]
#: What names a folder of the cache and files that are exported, which get endings of their own.
Id = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*\Z", max_length=128)]
#: The name of a file in a folder of the cache.
FileName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*\Z", max_length=200)]
#: https, a Hugging Face repository, or http on this machine; it ends in the file's name, on Dropbox in `?dl=1` besides.
Url = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^(https|http|hf)://[^\s?#\x00-\x1f\x7f]+/(?!\.\.?(@|\?|\Z))[^/\s?#\x00-\x1f\x7f]{1,200}(\?dl=1)?\Z",
        max_length=2000,
    ),
]
#: A path, which the system cannot know with control characters or in any length.
FilePath = Annotated[str, msgspec.Meta(pattern=r"^[^\x00-\x1f\x7f]+\Z", max_length=1000)]

# Bounds of numbers: far beyond what was ever trained, and such that what they allow can still be built. A bound above
# refuses infinity as well, one on either side NaN.
Count = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
Classes = Annotated[int, msgspec.Meta(ge=1, le=65_536)]
Frames = Annotated[int, msgspec.Meta(ge=1, le=256)]
#: Pixels of a side: in fewer the deepest features of some networks are none.
Size = Annotated[int, msgspec.Meta(ge=32, le=2048)]
Stride = Annotated[int, msgspec.Meta(ge=1, le=10_000)]
Rate = Annotated[float, msgspec.Meta(gt=0, le=1000)]
#: Of a normalisation, on the scale 0…1.
Mean = Annotated[float, msgspec.Meta(ge=-1000, le=1000)]
Std = Annotated[float, msgspec.Meta(ge=1e-6, le=1000)]
Percent = Annotated[float, msgspec.Meta(ge=0, le=100)]
Cost = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
_Side = Annotated[int, msgspec.Meta(ge=1, le=65_536)]

#: Pixels of a clip, over all its frames, that the largest networks take within some gigabytes; of one with non-local
#: blocks, which compare each place with every other.
_MOST_PIXELS = 2**25
_MOST_PIXELS_NON_LOCAL = 2**22

#: Endings that `download` gives to what it keeps beside a file.
_COMPANIONS = (".part", ".part.json", ".part.hub", ".sha256", ".lock", ".bad")

#: The dataset, and the source, of what is the user's own.
OWN = "own"
_MOST_LABELS = 16 * 2**20
#: Bytes that a checkpoint may hold a parameter: weights, momentum and as much again, in float32.
_BYTES_PER_PARAMETER = 16
_BYTES_OF_METADATA = 16 * 2**20


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A mapping of registry.yaml; an unknown or missing key is an error."""


class Result(_Record, frozen=True):
    """One published accuracy, in percent, under the protocol that gave it."""

    protocol: str | None
    source: str
    as_published: str = ""
    top1: Percent | None = None
    top5: Percent | None = None
    #: Mean average precision, for multi-label datasets.
    map: Percent | None = None
    #: Frames of a clip when it was measured, where they are neither the protocol's nor the model's own.
    frames: Frames | None = None


class Published(_Record, frozen=True):
    """A cost as published: GMACs or millions of parameters."""

    value: Cost
    source: str
    #: What one unit of it covers, for instance "8 frames at 224x224".
    basis: str | None = None


class Normalisation(_Record, frozen=True):
    """How frames in 0…1 become the network's input: `(frame - mean) / std`, channel by channel."""

    #: Of the channels that the network takes; frames are decoded as RGB.
    order: Literal["RGB", "BGR", "flow"]
    mean: tuple[Mean, ...]
    std: tuple[Std, ...]
    about: str


class LabelMap(_Record, frozen=True):
    """A dataset's classes in the order of the logits; their names, or else those of `labels/<key>.txt`."""

    classes: Classes
    order: str
    names: tuple[str, ...] | None = None


class Source(_Record, frozen=True, kw_only=True):
    """A publisher."""

    name: str
    #: Of its code, and the commit that the facts were read at; none for what was trained here.
    repository: str | None = None
    commit: str | None = None
    citation: str
    #: What `licence` of its entries covers.
    licence_note: str | None = None


class Entry(_Record, frozen=True, kw_only=True):
    """One published checkpoint and all that is needed to use it as its publisher did.

    Without `urls` and `file` it is an architecture for which nobody published weights.
    """

    id: Id
    family: Family
    mode: Mode
    backbone: Backbone
    #: Multiplier of the channels (mobilenet_v2).
    width: Annotated[float, msgspec.Meta(gt=0, le=4)] = 1.0
    dataset: str
    #: Which of the dataset's official splits the file was trained on: UCF101 and HMDB51 have three.
    split: Count | None = None
    #: Rows of the classifier.
    classes: Classes
    modality: Modality
    #: Segments of a clip (T); 1 for an online model, which takes a frame a step.
    frames: Frames
    #: Side of the square input that the file was trained with, in pixels.
    size: Size = 224
    #: Several classes may hold at once (sigmoid, mean average precision).
    multi_label: bool = False
    #: The share of the channels that comes from either side: 1/8 of them (TSM, Table 2; ablations take others).
    shift_div: Annotated[int, msgspec.Meta(ge=2, le=64)] = 8
    #: The shift that the file was trained with, where its keys do not tell: `shift` in a registry.
    said_shift: ShiftName | None = msgspec.field(name="shift", default=None)
    #: In the residual branch, or in front of the whole block, whose shortcut then lacks the present frame (§ 4.2).
    shift_place: Literal["residual", "in-place"] = "residual"
    #: Frames that shift among themselves, where they are fewer than the clip's.
    shift_frames: Frames | None = None
    non_local: NonLocal | None = None
    #: The output projection of the non-local blocks has a bias: MIT's, not mmaction2's.
    non_local_bias: bool = True
    #: Shapes, 1, C, H, W, of an online model's states at its own size, in the order of the blocks.
    states: Annotated[tuple[tuple[Literal[1], _Side, _Side, _Side], ...], msgspec.Meta(max_length=256)] = ()
    #: How the file was trained to see a video: T segments of all of it, T frames `stride` apart, or a live stream.
    sampling: Literal["uniform", "dense", "stream"]
    stride: Stride | None = None
    #: Frames a second that a live stream is sampled at, where the publisher says or implies it.
    target_fps: Rate | None = None

    normalisation: str
    labels: str

    format: WeightsFormat
    source: str
    #: Where the file is published; none for one that lies beside the registry.
    urls: tuple[Url, ...] = ()
    #: Further files of the same checkpoint, by name, in the folder of each of `urls`.
    beside: tuple[FileName, ...] = ()
    #: A file that needs no download: its path from the registry's folder, in tsmzoo's own registry from the package.
    file: FilePath | None = None
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")] | None = None
    #: The first hex digits of the sha256, as they stand in the published file name.
    sha256_prefix: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{8,64}$")] | None = None
    #: What git calls the file, where it is published in a repository: the sha1 of its size and content.
    git_blob_sha1: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{40}$")] | None = None
    config: str | None = None
    pretrain: str | None = None
    licence: str

    #: Parameters, buffers not counted.
    params: Annotated[int, msgspec.Meta(ge=1, le=10**10)]
    #: Multiply-accumulates of convolutions and linear layers for one clip (online: one frame) of
    #: `frames` frames of `size` pixels, in thousand millions.
    gmacs: Cost
    published_gmacs: Published | None = None
    published_mparams: Published | None = None
    results: tuple[Result, ...] = ()

    #: What a user looking for this task and cost should take.
    recommended: bool = False
    #: What is doubtful about file or figures; empty where nothing is.
    doubt: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def channels(self) -> int:
        """Input channels: 3 for RGB, x and y of each flow image that makes a frame."""
        return 3 if self.modality == "rgb" else 2 * self.stack

    @property
    def stack(self) -> int:
        """Images that make a frame: five of flow for a 2-D network, else one."""
        return 5 if self.modality == "flow" and self.family != "i3d" else 1

    @property
    def flow_images(self) -> str:
        """What a frame of a model of flow is, in words."""
        return "five x, y flow images" if self.stack > 1 else "x, y of a flow image"

    @property
    def short_side(self) -> int:
        """The short side that a video is resized to before it is cropped: 256 for 224, as both publishers do."""
        return round(self.size * 256 / 224)

    @property
    def too_large(self) -> str | None:
        """What is wrong with an input that nobody's memory holds; None where nothing is."""
        most = _MOST_PIXELS_NON_LOCAL if self.non_local else _MOST_PIXELS
        if self.frames * self.size**2 <= most:
            return None
        return (
            f"clips of {self.frames} frames of {self.size} pixels are too large: at that size "
            f"{most // self.size**2} frames are the most, and {isqrt(most // self.frames)} pixels with as many frames"
        )

    @property
    def mparams(self) -> float:
        return self.params / 1e6

    @property
    def shift(self) -> str | None:
        """The direction of the shift: None for TSN and I3D."""
        if self.family != "tsm":
            return None
        return "unidirectional" if self.mode == "online" else "bidirectional"

    @property
    def exportable(self) -> bool:
        """Whether `export` takes it: a model of flow needs a phone to compute flow, but every entry converts."""
        return True

    @property
    def has_weights(self) -> bool:
        """Whether there is a file of weights: published, or beside the registry."""
        return bool(self.urls) or self.file is not None

    @property
    def filename(self) -> str | None:
        """The file's name, without its folder; None where no weights were published."""
        if self.file is not None:
            return Path(self.file).name
        if not self.urls:
            return None
        url = self.urls[0]
        name = urlsplit(url).path.rsplit("/", 1)[-1]
        return name.partition("@")[0] if url.startswith("hf://") else name

    @property
    def max_bytes(self) -> int:
        """A download larger than this is not this checkpoint."""
        return self.params * _BYTES_PER_PARAMETER + _BYTES_OF_METADATA

    @property
    def headline(self) -> Result | None:
        """The figure to show where there is room for one: the first with a protocol, else the first."""
        named = [result for result in self.results if result.protocol]
        return next(iter([*named, *self.results]), None)


class Registry(_Record, frozen=True, dict=True):
    """All entries, and what they refer to by key."""

    models: tuple[Entry, ...] = ()
    aliases: dict[str, str] = {}
    sources: dict[str, Source] = {}
    normalisations: dict[str, Normalisation] = {}
    labels: dict[Id, LabelMap] = {}

    @cached_property
    def by_id(self) -> dict[str, Entry]:
        return {entry.id: entry for entry in self.models}

    def find(self, name: str) -> Entry:
        """Return the entry that `name` or an alias names.

        Raises RegistryError with the nearest ids where nothing does.
        """
        entry = self.by_id.get(self.aliases.get(name, name))
        if entry is not None:
            return entry
        import difflib

        near = difflib.get_close_matches(name, [*self.by_id, *self.aliases], n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}?" if near else "`tsmzoo list --all` shows every id"
        raise RegistryError(f"no model is called {name!r}: {hint}")

    def match(self, pattern: str) -> list[Entry]:
        """Return the entries whose id or alias fits a shell wildcard such as `tsm_*_sthv2*`."""
        return [
            entry
            for entry in self.models
            if any(fnmatch.fnmatchcase(name, pattern) for name in (entry.id, *self.names(entry)))
        ]

    def names(self, entry: Entry) -> list[str]:
        """Return the aliases of `entry`."""
        return [alias for alias, target in self.aliases.items() if target == entry.id]

    def text(self, entry: Entry) -> str:
        """Return all of `entry` that a search goes through."""
        source = self.sources[entry.source]
        return " ".join([entry.id, *self.names(entry), entry.dataset, entry.backbone, source.name, *entry.notes])

    def label_names(self, entry: Entry) -> tuple[str, ...] | None:
        """Return the class names in the order of the logits, or None where they are not at hand."""
        names = self.labels[entry.labels].names
        path = paths.LABELS / f"{entry.labels}.txt"
        if names is None and path.is_file():
            names = tuple(path.read_text(encoding="utf-8").splitlines())
        if names is not None and len(names) != entry.classes:
            raise RegistryError(
                f"labels {entry.labels!r}: {len(names)} names for {entry.classes} classes; mend the list"
            )
        return names


def load(*extra: Path) -> Registry:
    """Read the project's registry, and each of `extra` on top of it; a later id replaces an earlier one.

    Raises RegistryError naming file, entry and key.
    """
    merged = Registry()
    layers = [(paths.DATA / "registry.yaml", paths.PACKAGE), *((path, path.parent) for path in extra)]
    for path, folder in layers:
        layer = _read(path, folder)
        merged = Registry(
            models=tuple({entry.id: entry for entry in (*merged.models, *layer.models)}.values()),
            aliases=merged.aliases | layer.aliases,
            sources=merged.sources | layer.sources,
            normalisations=merged.normalisations | layer.normalisations,
            labels=merged.labels | layer.labels,
        )
        _check(merged, path)
    return merged


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


_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def read_labels(path: Path) -> tuple[str, ...]:
    """Return the names of classes in a file, one a line, in the order of the logits.

    Raises RegistryError where it cannot be read, a line is empty or a name stands there twice.
    """
    try:
        text = files.read_text(path, _MOST_LABELS).removeprefix("\ufeff").rstrip()
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


def _read(path: Path, folder: Path) -> Registry:
    """Read one file; its entries' own files lie in `folder`."""
    try:
        data = parse(files.read(path, MOST))
    except OSError as error:
        raise RegistryError(f"{path}: cannot be read ({error.strerror}); give a registry file") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that is none
        raise RegistryError(f"{path}: is not YAML ({of_error(error)})") from None
    if not isinstance(data, dict):
        raise RegistryError(f"{path}: a registry is a mapping with `models:`; see the project's own registry.yaml")
    models = data.pop("models", None) or []
    if not isinstance(models, list):
        raise RegistryError(f"{path}: `models` must be a list of entries")
    entries = tuple(
        _convert(item, Entry, f"{path}: entry {_title(item, number)}") for number, item in enumerate(models)
    )
    times = Counter(entry.id for entry in entries)
    if twice := sorted(name for name in times if times[name] > 1):
        raise RegistryError(f"{path}: entry {twice[0]!r} stands there twice; ids must be unique")
    rest: Registry = _convert(data, Registry, str(path))
    located = (
        entry if entry.file is None else msgspec.structs.replace(entry, file=str(folder / entry.file))
        for entry in entries
    )
    return msgspec.structs.replace(rest, models=tuple(located))


def _title(item: Any, number: int) -> str:
    named = isinstance(item, dict) and isinstance(item.get("id"), str)
    return repr(item["id"]) if named else f"number {number + 1}"


def _convert(data: Any, kind: type[Any], where: str) -> Any:
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        raise RegistryError(f"{where}: {error}") from None


def _check(registry: Registry, path: Path) -> None:
    """Check what a type cannot say: that every key an entry refers to exists."""
    protocols = {recipe.stem for recipe in (paths.DATA / "recipes" / "eval").glob("*.yaml")}
    for entry in registry.models:
        where = f"{path}: entry {entry.id!r}"
        for key, table in (
            ("source", registry.sources),
            ("normalisation", registry.normalisations),
            ("labels", registry.labels),
        ):
            if (value := getattr(entry, key)) not in table:
                raise RegistryError(f"{where}: {key} {value!r} is not defined; known are {', '.join(table)}")
        for result in entry.results:
            if result.protocol is not None and result.protocol not in protocols:
                raise RegistryError(f"{where}: protocol {result.protocol!r} is not in recipes/eval")
        normalisation = registry.normalisations[entry.normalisation]
        if not len(normalisation.mean) == len(normalisation.std) == entry.channels or 0 in normalisation.std:
            raise RegistryError(f"{where}: normalisation {entry.normalisation!r} is not for {entry.channels} channels")
        if entry.urls and entry.file is not None:
            raise RegistryError(f"{where}: give either the urls of its file or, beside the registry, a file")
        digest = entry.sha256 or entry.sha256_prefix or entry.git_blob_sha1
        if not entry.has_weights and (entry.format != "tsmzoo" or digest):
            raise RegistryError(
                f"{where}: give the urls of its file or, beside the registry, a file; of a model without published "
                "weights, format tsmzoo and no digest"
            )
        for url in entry.urls:
            try:
                _ = urlsplit(url).port
            except ValueError as error:
                raise RegistryError(f"{where}: {url!r} is no address ({error})") from None
        if wrong_name := next((name for name in (entry.filename, *entry.beside) if _is_companion(name)), None):
            raise RegistryError(f"{where}: a file cannot be called {wrong_name!r}, as notes on a download are")
        if entry.too_large:
            raise RegistryError(f"{where}: {entry.too_large}")
        if entry.beside and not entry.urls:
            raise RegistryError(f"{where}: beside names files that are published with the one of urls")
        if len({entry.filename, *entry.beside}) <= len(entry.beside):
            raise RegistryError(f"{where}: beside names a file twice, or that of urls")
        if entry.width != 1 and entry.backbone != "mobilenet_v2":
            raise RegistryError(f"{where}: width is for backbone mobilenet_v2")
        if (entry.family == "i3d") != ("i3d" in entry.backbone):
            raise RegistryError(f"{where}: backbone {entry.backbone} is not for family {entry.family}")
        if entry.non_local and not entry.backbone.startswith(("resnet", "resnext")):
            raise RegistryError(f"{where}: non_local is for the ResNets, not for backbone {entry.backbone}")
        if wrong := _wrong_shift(entry):
            raise RegistryError(f"{where}: {wrong}")
        if entry.format == "torchvision":
            raise RegistryError(f"{where}: format torchvision is an image network's, which is no model of videos")
        if entry.file is not None and entry.sha256 is None:
            raise RegistryError(f"{where}: a file beside the registry needs its sha256")
        if entry.mode == "online" and (entry.family != "tsm" or entry.frames != 1 or not entry.states):
            raise RegistryError(f"{where}: mode online is for family tsm, with frames 1 and its states")
        if (classes := registry.labels[entry.labels].classes) != entry.classes:
            raise RegistryError(f"{where}: classes {entry.classes} do not fit labels {entry.labels!r} ({classes})")
    for alias, target in registry.aliases.items():
        if target not in registry.by_id:
            raise RegistryError(f"{path}: alias {alias!r} points to {target!r}, which is no entry")
        if alias in registry.by_id:
            raise RegistryError(f"{path}: alias {alias!r} is an id already")


def _is_companion(name: str | None) -> bool:
    return name is not None and name.endswith(_COMPANIONS)


def _wrong_shift(entry: Entry) -> str | None:
    """Return what is wrong with the options of an entry's shift."""
    if entry.family != "tsm":
        options = (entry.shift_div, entry.shift_place, entry.shift_frames, entry.said_shift)
        if options != (8, "residual", None, None):
            return "shift, shift_div, shift_place and shift_frames are for family tsm"
        return None
    if entry.said_shift == "uni" and entry.mode == "offline":
        return "shift uni is for mode online: a clip's frames are shifted both ways"
    places = SHIFT_PLACES.get(entry.backbone)
    if places is None:
        return f"backbone {entry.backbone} has no shift; family tsm takes one of {', '.join(SHIFT_PLACES)}"
    if entry.shift_place not in places:
        return f"backbone {entry.backbone} is shifted {' or '.join(places)} alone; set shift_place"
    if entry.shift_frames and (entry.mode == "online" or entry.frames % entry.shift_frames):
        return f"shift_frames {entry.shift_frames} does not divide the frames of a clip ({entry.frames})"
    return None
