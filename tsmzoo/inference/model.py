"""A model that is ready to run: a network in torch or an exported file. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, SupportsIndex, cast

import msgspec
import numpy as np

from tsmzoo.artifact.arrays import feed, from_layout, logits, normalize, unpacked
from tsmzoo.artifact.contract import Contract
from tsmzoo.artifact.converter import Runner, StatefulRunner, open_artifact
from tsmzoo.checks import check
from tsmzoo.data import sampling
from tsmzoo.errors import DataError, ZooError
from tsmzoo.inference.smoothing import Smoothing
from tsmzoo.inference.stream import Stream
from tsmzoo.system.quiet import quiet
from tsmzoo.typing import Array

if TYPE_CHECKING:
    from PIL import Image
    from torch import nn

    from tsmzoo.registry import Registry
    from tsmzoo.weights.load import Network

#: Of an online model, by name.
States = dict[str, Array]


#: Frames of a video that an online model classifies, as under its default protocol of evaluation: TSM, and MoViNet.
_STREAMED, _STREAMED_AVERAGING = 8, 50


class Prediction(msgspec.Struct, frozen=True):
    """A class, and its probability.

    Attributes:
        label: Name of the class.
        probability: 0…1.
        index: Place of the class among the logits.

    Examples:
        >>> model = tsmzoo.load("tsm_mbv2_motion")
        >>> prediction = model.classify("opening.mp4")[0]
        >>> prediction.label, prediction.index == model.labels.index("opening")
        ('opening', True)
    """

    label: str
    probability: float
    index: int


@dataclass(frozen=True, eq=False)  # two are one only if they are the same object
class Model:
    """A network or an exported file, ready to run: what `tsmzoo.load` returns.

    Attributes:
        contract: What its tensors are, its labels, its preprocessing, and what it was made from: the same record that
            lies beside an exported file.
        module: The network in torch; None for a file. An offline model takes normalized clips, N, T, C, H, W, and
            returns logits, N, classes. An online one takes a normalized frame, N, C, H, W, and the states, and returns
            logits and the next states.

    Examples:
        >>> model = tsmzoo.load("tsm_mbv2_motion")
        >>> model
        <Model tsm_mbv2_motion, torch fp32, offline, 8 frames of 64 px>
        >>> model(np.zeros((8, 3, 64, 64), np.uint8)).shape
        (14,)
    """

    #: Runs it: named arrays in, named arrays out.
    runner: Runner
    contract: Contract
    module: nn.Module | None = None
    #: The network with its entry, and the registry that holds it; None for a file.
    network: Network | None = field(default=None, repr=False)
    registry: Registry | None = field(default=None, repr=False)
    #: The exported file; None for a network.
    path: Path | None = field(default=None, repr=False)
    #: The registry of your own that it was loaded with.
    registry_path: Path | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        c = self.contract
        takes = "online, frames" if c.mode == "online" else f"offline, {c.frames} frames"
        return f"<Model {c.model}, {c.format} {c.precision}, {takes} of {c.size} px>"

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        if self.path is not None:  # its runtime stays in this process
            raise TypeError(f"{self.path}: an open file is neither pickled nor copied; call tsmzoo.load once more")
        return super().__reduce_ex__(protocol)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits; `class 0`, `class 1` … if they are not known."""
        return self.contract.class_names

    def transform(self, frames: Iterable[Array | Image.Image]) -> Array:
        """Resize and crop frames as the model expects them.

        The short side is resized to `contract.resize` pixels (Pillow, bilinear, anti-aliased); the central square of
        `contract.size` pixels is kept, as MIT's TSM code does (github.com/mit-han-lab/temporal-shift-module,
        ops/transforms.py).

        Args:
            frames: RGB: PIL images, or arrays H, W, 3, uint8, 0…255.

        Returns:
            T, 3, H, W, uint8, 0…255: a clip for `model(clip)`; `normalize` makes of it what `module` takes.

        Raises:
            DataError: A frame is no RGB image, or there are none.
            VideoError: A frame is too narrow to be resized.
            ZooError: The model sees optical flow, not RGB.

        Examples:
            >>> model = tsmzoo.load("tsm_mbv2_motion")
            >>> model.transform([np.zeros((240, 320, 3), np.uint8)] * 8).shape
            (8, 3, 64, 64)
        """
        from tsmzoo.data import transforms  # OpenCV and Pillow, which arrays need not wait for

        self._check_rgb()
        resize, size = self.contract.resize, self.contract.size
        prepared = [transforms.prepared(_image(frame), resize, size) for frame in frames]
        if not prepared:
            raise DataError("there are no frames; give one at least")
        return np.stack(prepared)

    def normalize(self, clip: Array) -> Array:
        """Normalize a clip for `module`: `(value / 255 - mean) / std`, channel by channel, in the model's order.

        Args:
            clip: …, C, H, W, 0…255, RGB.

        Returns:
            The same shape, float32.

        Examples:
            >>> model = tsmzoo.load("tsm_mbv2_motion")
            >>> clip = np.zeros((1, 8, 3, 64, 64), np.uint8)
            >>> logits = model.module(torch.from_numpy(model.normalize(clip)))
            >>> tuple(logits.shape)
            (1, 14)
        """
        return normalize(clip, self.contract)

    def __call__(self, clip: Array) -> Array:
        """Run the model on one clip, or on several.

        Args:
            clip: T, C, H, W or N, T, C, H, W, uint8, 0…255, RGB, as `transform` returns it. An online model takes any
                T: it is fed frame by frame from empty states, and its logits are averaged; one that keeps running means
                (MoViNet) answers after the last frame.

        Returns:
            Logits: classes, or N, classes, float32.

        Raises:
            DataError: The clip has another shape.

        Examples:
            >>> model = tsmzoo.load("tsm_mbv2_motion_online")
            >>> clip = model.transform([np.zeros((64, 64, 3), np.uint8)] * 5)
            >>> model(clip).shape
            (14,)
        """
        c, clip = self.contract, np.asarray(clip)
        frames = clip.shape[-4] if clip.ndim in (4, 5) and c.mode == "online" else c.frames
        if (
            clip.ndim not in (4, 5)
            or not clip.size
            or clip.shape[-4:] != (wanted := (frames, len(c.mean), c.size, c.size))
        ):
            length = "any number of" if c.mode == "online" else c.frames
            raise DataError(
                f"{c.model} takes clips T, C, H, W of {length} frames, {len(c.mean)} channels and {c.size} px, not "
                f"{list(clip.shape)}; see Model.transform"
            )
        clips = clip.reshape(-1, *wanted)
        if c.mode == "offline":
            logits = self.clip_logits(clips)
        else:
            after_each = self.frame_logits(clips)
            logits = after_each[:, -1] if c.averages else after_each.mean(1)
        return logits if clip.ndim == 5 else np.asarray(logits[0])

    def classify(self, video: str | Path | Iterable[Array | Image.Image], top: int = 5) -> list[Prediction]:
        """Classify a video.

        An offline model sees one clip: frames spread over the video, or every `contract.stride`th one of its middle,
        as it was trained. An online model is fed eight frames spread over the video, or fifty if it keeps running means
        (MoViNet), and then answers after the last; for frames as they come, see `stream`.

        Args:
            video: A video file, a folder of images, or its frames: RGB, PIL images or arrays H, W, 3, uint8. All frames
                of a generator are held in memory until it ends.
            top: Classes to return.

        Returns:
            The most probable classes, most probable first.

        Raises:
            VideoError: The video is missing or cannot be decoded.
            DataError: There are no frames, or a frame is no RGB image; or a logit is no finite number: the weights are
                damaged.
            ZooError: The model sees optical flow, not RGB.

        Examples:
            >>> model = tsmzoo.load("tsm_mbv2_motion")
            >>> best, *others = model.classify("opening.mp4", top=3)
            >>> print(f"{best.label}: {best.probability:.0%}")
            opening: 100%
        """
        from tsmzoo.data import select
        from tsmzoo.data.dataset import Video

        check("top", top, Annotated[int, msgspec.Meta(ge=1)])
        self._check_rgb()
        frames: Any
        if isinstance(video, str | Path):
            total, frames = select.pick(Video(Path(video).name, Path(video), 0), self.sample)
        else:
            frames = video if isinstance(video, Sequence) else list(video)
            total = len(frames)
        if not total:
            raise DataError("the video has no frames; give one at least")
        indices = self.sample(total)
        window = 1 if self.contract.averages else len(indices)
        with self.stream(smoothing=Smoothing(window=window, threshold=0, hold=1)) as stream:
            for index in indices:
                stream.step(frames[index])
            return stream.top(top)

    def sample(self, total: int) -> list[int]:
        """Return the indices of the frames that it classifies a video of `total` frames by."""
        contract, count = self.contract, self.contract.frames
        if contract.mode == "online":
            count = _STREAMED_AVERAGING if contract.averages else _STREAMED
        return sampling.clip(total, count, contract.stride)

    def stream(self, *, smoothing: Smoothing | None = None, every: int | None = None) -> Stream:
        """Start a stream, whose frames are fed one by one as they come.

        An online model answers each frame; its logits are averaged over the last 0.8 s, and a label is shown if its
        probability reaches 0.5 and it has led for two frames running. An offline model answers when a clip is full.

        Args:
            smoothing: How logits become the label to show, in place of that.
            every: For an offline model: frames from one clip's end to the next one's; default: those of a clip.

        Raises:
            ZooError: The model sees optical flow, not RGB; or `every` is given for an online model.

        Examples:
            >>> model = tsmzoo.load("tsm_mbv2_motion_online")
            >>> with model.stream() as stream:
            ...     for frame in np.zeros((3, 64, 64, 3), np.uint8):
            ...         prediction = stream.step(frame)
            >>> prediction is None or prediction.label in model.labels
            True
        """
        self._check_rgb()
        return Stream(self, smoothing=smoothing, every=every)

    def check_finite(self, logits: Array) -> Array:
        """Return `logits`. Raises DataError if one is no finite number."""
        if not np.isfinite(logits).all():
            raise DataError(
                f"{self.contract.model}: its answers are not finite numbers; mend its weights or export it again"
            )
        return logits

    def prediction(self, index: int, odds: Array) -> Prediction:
        """Return the prediction of the class at `index`, given the probabilities of all."""
        return Prediction(self.labels[index], float(odds[index]), index)

    def _check_rgb(self) -> None:
        if self.contract.channel_order == "flow":
            raise ZooError(f"{self.contract.model} sees optical flow, not video; choose an RGB model")

    # Batches and states by hand: what evaluation, verification and live runs are made of.

    @property
    def any_batch(self) -> bool:
        """Whether one call takes several clips or streams."""
        return isinstance(self.contract.main_input.shape[0], str)

    def run_clips(self, pixels: Array) -> dict[str, Array]:
        """Return the outputs for clips of camera values 0…255, N, T, C, H, W."""
        return self._canonical(self.runner.run({self.contract.main_input.name: feed(pixels, self.contract)}))

    def run_step(self, pixels: Array, states: States | None = None) -> tuple[dict[str, Array], States]:
        """Return the outputs after a frame of camera values 0…255, N, C, H, W, and the next states.

        Without `states` a stream starts, from zeros. Raises DataError if the file keeps its states itself and was
        given frames of another stream since.
        """
        implicit = self.contract.state == "implicit"
        if implicit:
            runner = cast("StatefulRunner", self.runner)
            if states is None:
                runner.reset()
            elif states is not runner.stream:
                raise DataError(
                    f"{self.contract.artifact}: keeps its states itself, and another stream has begun since; run one "
                    "at a time, or export it with explicit states"
                )
            states = runner.stream
        elif states is None:
            states = self.contract.initial_states(len(pixels))
        outputs = self.runner.run({self.contract.main_input.name: feed(pixels, self.contract), **states})
        if not implicit:
            states = {pair.input: outputs[pair.output] for pair in self.contract.states}
        return self._canonical(outputs), states

    def run_stream(self, frames: Iterable[Array]) -> Iterator[dict[str, Array]]:
        """Yield the outputs after each frame of camera values 0…255, N, C, H, W, the states fed back from zero."""
        states: States | None = None
        for pixels in frames:
            outputs, states = self.run_step(pixels, states)
            yield outputs

    def clip_logits(self, clips: Array) -> Array:
        """Return the logits, N, classes, of clips of camera values, N, T, C, H, W; in one call if it takes them so."""
        if self.any_batch:
            return self.run_clips(clips)["logits"]
        return np.concatenate([self.run_clips(clip[None])["logits"] for clip in clips])

    def frame_logits(self, clips: Array) -> Array:
        """Return the logits after each frame, N, T, classes, of streams of camera values, N, T, C, H, W."""
        if not self.any_batch and len(clips) > 1:
            return np.concatenate([self.frame_logits(clip[None]) for clip in clips])
        steps = self.run_stream(clips[:, step] for step in range(clips.shape[1]))
        return np.stack([outputs["logits"] for outputs in steps], axis=1)

    def _canonical(self, outputs: dict[str, Array]) -> dict[str, Array]:
        """Return outputs in the form of the network in torch: channels first, one array per state, logits."""
        contract = self.contract
        found = {tensor.name: from_layout(outputs[tensor.name], tensor.layout) for tensor in contract.outputs}
        if contract.state == "packed":
            layouts = {part.name: part.layout for part in contract.parts}
            states = unpacked(found.pop("next_state"), contract.parts)
            found |= {f"next_{name}": from_layout(state, layouts[name]) for name, state in states.items()}
        if contract.answer != "logits":
            found["logits"] = logits(found[contract.answer], contract.activation, contract.precision)
        return found


def _image(frame: Array | Image.Image) -> Image.Image:
    from PIL import Image

    if isinstance(frame, Image.Image):
        return frame.convert("RGB")
    frame = np.asarray(frame)
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or not frame.size:
        raise DataError(f"a frame is H, W, 3, uint8, not {list(frame.shape)}, {frame.dtype}")
    return Image.fromarray(frame)


def open_file(path: Path, threads: int | None = None) -> Model:
    """Return an exported file, checked against its contract, ready to run. Raises ArtifactError."""
    contract, converter = open_artifact(path)
    with quiet():
        converter.check(path, contract)
        return Model(converter.load(path, contract, threads), contract, path=path.absolute())


def check_file(path: Path) -> None:
    """Check an exported file against its contract, and run nothing. Raises ArtifactError."""
    contract, converter = open_artifact(path)
    with quiet():
        converter.check(path, contract)


def warnings(model: str, made_of: Network | Contract) -> Iterator[str]:
    """Yield what makes the answers of `model` doubtful: random weights, a shift it was not trained with."""
    if made_of.weights == "random":
        yield f"warning: the weights of {model} are RANDOM (seed {made_of.seed}); its answers mean nothing"
    if made_of.checkpoint and made_of.checkpoint.shift_mismatch:
        yield f"warning: {model} holds a BIDIRECTIONAL checkpoint; its answers are not the published ones"
