"""Recipes: protocols that published figures stand under, targets of an export, and how a network is trained."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from tsmzoo.errors import RegistryError
from tsmzoo.formats import Format
from tsmzoo.registry import Frames, Id, compiled, paths
from tsmzoo.text import of_error

RECIPES = paths.DATA / "recipes"

Crops = Literal[1, 3, 5, 10]
#: Rules of sampling that know a stride.
STRIDED = ("dense", "spread", "windows")


# Beyond these nothing is meant; infinity and NaN are outside, too. Memory and time end long before most of them.
_Count = Annotated[int, msgspec.Meta(ge=1, le=10_000)]
_Many = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
_Relative = Annotated[float, msgspec.Meta(gt=0, le=1)]
_Positive = Annotated[float, msgspec.Meta(gt=0, le=1e30)]
_NotNegative = Annotated[float, msgspec.Meta(ge=0, le=1e30)]
_Share = Annotated[float, msgspec.Meta(ge=0, lt=1)]


class Protocol(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a video is seen to be scored (`recipes/eval/<id>.yaml`): everything that moves an accuracy, as data."""

    #: The publisher's file or paper that it was read in.
    source: str
    #: Whose resizing and crops (tsmzoo/data/transforms.py): MIT's Pillow filter, or mmaction2's OpenCV filter.
    pipeline: Literal["mit", "mmaction2"]
    #: The rule of tsmzoo/data/sampling.py that gives the clips' frames.
    sampling: Literal["uniform", "interleaved", "dense", "spread", "windows", "whole"]
    clips: _Count = 1
    #: Frames of a clip (T), with `whole` the most of a video; None for the T that the model was trained with.
    frames: _Count | None = None
    #: Frames from one to the next (`dense`, `spread`, `windows`: on average); None for 64 // T, or for the model's own
    #: (`spread`).
    stride: _Count | None = None
    #: Centre; three along the long side; four corners and centre; the same and their mirror images.
    crops: Crops = 1
    #: Crops as large as the short side, not of the model's own size: 256 for 224.
    full: bool = False
    #: What an online model's logits after each frame of a view become: their mean, or those after the last frame; then
    #: the mean is scored, too.
    answer: Literal["mean", "last"] = "mean"
    #: What is averaged over the views; over the frames of a view it is always logits.
    average: Literal["logits", "probabilities"]
    #: What one should know of it.
    note: str | None = None
    #: A name quicker to type.
    short: str | None = None

    @property
    def views(self) -> int:
        """Clips x crops: forward passes a video."""
        return self.clips * self.crops

    def text(self, frames: int | str) -> str:
        """Return it in words, for a model of `frames` frames."""
        taken: str = self.sampling
        many = f"{self.frames or frames} frames"
        if taken == "whole":
            many, taken = f"all frames, {self.frames or frames} at most", "as one"
        if taken in STRIDED:
            t = self.frames or frames
            stride = self.stride or (max(1, 64 // t) if isinstance(t, int) else f"64/{t}")
            taken += f", one frame of {stride}"
        resize = "Pillow bilinear, anti-aliased" if self.pipeline == "mit" else "OpenCV bilinear"
        crops = {1: "centre crop", 3: "3 crops", 5: "5 crops", 10: "10 crops, mirrored"}[self.crops]
        whole = " of the whole short side" if self.full else ""
        mean = f"; mean of {self.average} over {self.views} views" if self.views > 1 else ""
        clips = "1 clip" if self.clips == 1 else f"{self.clips} clips"
        return f"{clips} of {many}, {taken}; {resize}; {crops}{whole}{mean}"


Precision = Literal["fp32", "fp16", "w8", "int8"]


class QualityThreshold(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a file in fewer bits must reach on real clips, next to the same file in float."""

    #: Share of clips whose first class is the same.
    agreement: Annotated[float, msgspec.Meta(ge=0, le=1)]
    #: Mean cosine between logits; and of the last frames of a long stream.
    cosine: Annotated[float, msgspec.Meta(ge=-1, le=1)]
    #: Points of top-1 that may be lost, where labels are known.
    lost: Annotated[float, msgspec.Meta(ge=0, le=100)]


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `export` writes unless told otherwise (`recipes/export/<name>.yaml`, or a file of the user's)."""

    format: Format
    precision: Precision
    preprocess: Literal["embedded", "external"]
    #: Largest error by precision, relative to the range of each output.
    tolerance: Annotated[dict[Precision, _Relative], msgspec.Meta(min_length=1)]
    #: Frames per stream of a verification: in fewer, a state that is lost may hide.
    steps: Annotated[int, msgspec.Meta(ge=16, le=10_000)]
    #: By precision: what is judged on real clips beside the tolerance.
    bars: dict[Precision, QualityThreshold] = {}
    #: Of online models.
    state: Literal["explicit", "packed", "implicit"] = "explicit"
    #: For the GPUs of Android phones (tflite).
    gpu_safe: bool = False
    #: Probabilities in place of logits.
    softmax: bool = False


class Training(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a network is trained (`recipes/train/<name>.yaml`, or a file of the user's)."""

    #: The id that the trained model gets.
    name: Id
    #: The registry's entry whose architecture, shift, size and normalisation are trained.
    model: str
    #: What training starts from: `random`, `published`, or a checkpoint's path: of the model, of an image network
    #: (torchvision's), or, where the model is its inflation, of a network of frames.
    weights: Annotated[str, msgspec.Meta(pattern=r"^[^\x00-\x1f\x7f]+\Z", max_length=4096)]
    epochs: _Many
    #: Clips of a step, over all processes.
    batch: _Many
    lr: _Positive
    #: The classifier's rate, as a multiple of the others'.
    classifier_rate: _Positive = 1.0
    schedule: Literal["cosine", "steps"]
    #: Epochs after which the rate falls to a tenth (schedule `steps`).
    steps: Annotated[tuple[_Many, ...], msgspec.Meta(max_length=1000)] = ()
    #: Epochs over which the rate rises from zero.
    warmup: _NotNegative = 0.0
    momentum: _Share = 0.9
    #: On the weights of convolutions and the classifier; never on biases and batch norms.
    weight_decay: _NotNegative = 5e-4
    #: Largest norm of a step's gradient.
    clip_gradient: _Positive = 20.0
    #: In front of the classifier.
    dropout: _Share = 0.5
    #: Freeze every batch norm but the first (TSN, § 3.2): for fine-tuning on few videos.
    partial_bn: bool = False
    #: Frames of a clip; None for the model's own. An online model is trained on clips, too, and needs it.
    frames: Frames | None = None  # as many as the registry that a training leaves may say
    #: Sides of the square crops that are drawn at random places, as shares of the short side.
    scales: Annotated[
        tuple[Annotated[float, msgspec.Meta(ge=0.01, le=1)], ...], msgspec.Meta(min_length=1, max_length=1000)
    ]
    #: Mirror half of the clips, by chance: not where a class depends on direction.
    hflip: bool
    #: Keep every decoded video in memory: for short videos that fit, in one process without workers.
    in_memory: bool = False
    #: Processes that decode videos.
    workers: Annotated[int, msgspec.Meta(ge=0, le=1024)] = 0
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] = 0


_T = TypeVar("_T", Protocol, Target, Training)


def protocol(name: str) -> Protocol:
    """Read the evaluation protocol that `name` is the id of. Raises RegistryError naming file and key."""
    path = RECIPES / "eval" / f"{name}.yaml"
    return compiled.load(path, Protocol, lambda: _read(path, Protocol))


def find_protocol(name: str) -> tuple[str, Protocol]:
    """Return id and protocol of `name`, an id or a short name. Raises RegistryError naming the nearest."""
    known = {path.stem: path for path in sorted((RECIPES / "eval").glob("*.yaml"))}
    if name in known:
        return name, protocol(name)
    shorts = {found.short: (id_, found) for id_ in known if (found := _read(known[id_], Protocol)).short}
    if name in shorts:
        return shorts[name]
    near = difflib.get_close_matches(name, [*known, *filter(None, shorts)], 3, 0.5)
    hint = f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(sorted(filter(None, shorts)))}"
    raise RegistryError(f"no protocol is called {name!r}: {hint}")


def target(name: str) -> Target:
    """Read the export target `name`, or the file it is the path of. Raises RegistryError naming file and key."""
    return _read(_recipe_path("export", name), Target)


def training(name: str) -> Training:
    """Read the training recipe `name`, or the file it is the path of. Raises RegistryError naming file and key."""
    return _read(_recipe_path("train", name), Training)


def _recipe_path(kind: str, name: str) -> Path:
    if name.endswith(".yaml"):
        return Path(name)
    known = {path.stem: path for path in sorted((RECIPES / kind).glob("*.yaml"))}
    if name not in known:
        raise RegistryError(
            f"no recipe to {kind} is called {name!r}; there are {', '.join(known)}, or give a .yaml file"
        )
    return known[name]


def _read(path: Path, kind: type[_T]) -> _T:
    import yaml

    from tsmzoo.registry.bounded_yaml import MAX_BYTES, parse
    from tsmzoo.system import files

    try:
        data: Any = parse(files.read_text(path, MAX_BYTES))
        return msgspec.convert(data, kind)
    except OSError as error:
        raise RegistryError(f"{path}: cannot be read ({error.strerror}); add the recipe") from None
    # ValueError: not UTF-8, or not what the schema says.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise RegistryError(f"{path}: {of_error(error)}") from None
