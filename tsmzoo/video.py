"""Decoding videos, all frames or some, and writing them."""

from __future__ import annotations

import math
import os
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import IO

import av
from PIL import Image

from tsmzoo.artifact import Array
from tsmzoo.errors import VideoError

#: Seconds by which a frame's time may be early: containers round to a millisecond.
CLOCK_SLACK = 2e-3


def decode(path: Path) -> Iterator[tuple[float, Image.Image]]:
    """Yield (time in seconds, RGB image) of each frame, upright.

    A file that breaks off ends early. Raises VideoError where it gives no frame at all.
    """
    for time, image in decode_lazily(path):
        yield time, image()


def decode_lazily(path: Path) -> Iterator[tuple[float, Callable[[], Image.Image]]]:
    """Do as `decode`, but turn a frame into an image only where it is asked for: most of a stream's are skipped."""
    for time, frame in _frames(path):
        yield time, partial(_image, frame)


def rate(path: Path) -> Fraction | None:
    """Return the frames a second that a video says it has. Raises VideoError."""
    with _open(path) as (_, stream):
        return stream.average_rate or None


def _frames(path: Path, threads: int = 0) -> Iterator[tuple[float, av.VideoFrame]]:
    given = 0
    with _open(path, threads) as (container, stream):
        try:
            for frame in container.decode(stream):
                yield frame.time if frame.time is not None else given / float(stream.average_rate or 30), frame
                given += 1
        except av.error.FFmpegError as error:
            if not given:
                raise _undecodable(path, error) from None
    if not given:
        raise VideoError(f"{path}: holds no frame; give a video")


@contextmanager
def _open(path: Path, threads: int = 0) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """Open a file and its first video stream; 0 threads are as many as there are cores."""
    if not os.path.isfile(path):  # Path.is_file raises where the name is too long
        raise VideoError(f"{path}: is no file; give a video")
    try:
        if path.stat().st_size == 0:
            raise VideoError(f"{path}: is empty; give a video")
        # The bytes are read here and no protocol is open to FFmpeg: a playlist must not lead to other files or hosts.
        with path.open("rb") as file, _container(path, file) as container:
            if not container.streams.video:
                raise VideoError(f"{path}: has no video stream; give a video")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise VideoError(f"{path}: cannot be decoded (no decoder knows it); give a video")
            stream.thread_type = "AUTO"
            stream.codec_context.thread_count = threads
            yield container, stream
    except OSError as error:
        raise VideoError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None


def _container(path: Path, file: IO[bytes]) -> av.container.InputContainer:
    try:
        return av.open(file, "r", options={"protocol_whitelist": "none"})
    except av.error.FFmpegError as error:
        raise _undecodable(path, error) from None


def _undecodable(path: Path, error: av.error.FFmpegError) -> VideoError:
    return VideoError(f"{path}: cannot be decoded ({error.strerror}); give a video")


def _image(frame: av.VideoFrame) -> Image.Image:
    """Return a frame in RGB, upright: the rotation that phones record beside the pixels is undone."""
    image = Image.fromarray(frame.to_ndarray(format="rgb24"))
    return image.rotate(frame.rotation, expand=True) if frame.rotation % 360 else image


def encode(path: Path, frames: Array, fps: int) -> None:
    """Write `frames`, T, H, W, 3, uint8, H and W even, as Motion JPEG.

    Each frame is coded by itself at one quality, so nothing in the file, not even its size, depends on
    the order of the frames.
    """
    with av.open(path, "w", format="mp4") as container:
        stream = container.add_stream("mjpeg", rate=fps, options={"qmin": "3", "qmax": "3"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuvj420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


class Beat:
    """Tells which frames a stream of `fps` frames a second would have seen; all of them without `fps`."""

    def __init__(self, fps: float | None) -> None:
        self._step = 1 / fps if fps else 0.0
        self._due = -math.inf

    def takes(self, time: float) -> bool:
        """Say whether the frame at `time` is the first at or after its turn; ask once a frame, in order."""
        if not self._step:
            return True
        # Where time jumps back, as in files that were joined, it goes on from there.
        if self._due - self._step - CLOCK_SLACK <= time < self._due - CLOCK_SLACK:
            return False
        # The clock keeps its beat, whatever the frames' own; after a gap it starts anew.
        kept = self._due <= time + CLOCK_SLACK and time < self._due + self._step
        self._due = (self._due if kept else time) + self._step
        return True


def at_rate(frames: Iterator[tuple[float, Image.Image]], fps: float | None) -> Iterator[tuple[float, Image.Image]]:
    """Yield the frames that a stream of `fps` frames a second would have seen; all of them without `fps`."""
    beat = Beat(fps)
    return ((time, image) for time, image in frames if beat.takes(time))


# --- some frames of a video ------------------------------------------------------------------------------------------
#
# A frame is known by its place in the order of display. Where the container gives every packet's time of display, that
# order is known before anything is decoded, and only what leads to a wanted frame is: from the last key frame in front
# of it, and no frame on the way that others do not refer to. Elsewhere the video is decoded from its start.

#: Containers and codecs whose packets are frames, one for one, with times of display and true key frames.
_INDEXED = ({"mov", "mp4", "matroska", "webm"}, {"h264", "hevc", "mjpeg", "vp9", "av1", "mpeg4"})


@dataclass(frozen=True)
class Chosen:
    """Some frames of a video by index, RGB and upright, and the time of each in seconds."""

    #: Frames of the whole video.
    total: int
    images: dict[int, Image.Image]
    times: dict[int, float]


def pick(path: Path, choose: Callable[[int], Iterable[int]], threads: int = 0) -> Chosen:
    """Return the frames of a video whose indices `choose` gives, told their number.

    They are those that decoding all of it and counting would give, bit for bit where it is undamaged. `choose` may be
    called again where the container counts wrongly; its last answer holds. Raises VideoError.
    """
    with _open(path, threads) as (container, stream):
        guess = stream.frames
        try:
            packets = _index(container, stream)
            if packets is not None and (found := _pick_indexed(container, stream, packets, choose)) is not None:
                return found
        except av.error.FFmpegError:
            pass  # damaged: decoding in order gets as far as it can
    return _pick_in_order(path, choose, guess, threads)


@dataclass(frozen=True)
class _Packet:
    """A packet in the order of decoding."""

    pts: int
    key: bool


def _index(container: av.container.InputContainer, stream: av.VideoStream) -> list[_Packet] | None:
    """Return all packets of a stream without decoding one, or None where they do not tell the frames."""
    names, codecs = _INDEXED
    if names.isdisjoint(container.format.name.split(",")) or stream.codec_context.codec.canonical_name not in codecs:
        return None
    packets = []
    for packet in container.demux(stream):
        if packet.size == 0:  # the end
            continue
        if packet.pts is None or packet.is_corrupt or packet.is_discard:
            return None
        packets.append(_Packet(packet.pts, packet.is_keyframe))
    if not packets or not packets[0].key or len({packet.pts for packet in packets}) < len(packets):
        return None
    return packets


def _pick_indexed(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    packets: list[_Packet],
    choose: Callable[[int], Iterable[int]],
) -> Chosen | None:
    """Decode what the wanted frames need; None where what comes out is not what the packets promised."""
    shown = sorted(packet.pts for packet in packets)
    wanted = {shown[index]: index for index in choose(len(shown))}
    needed = _needed(packets, wanted.keys())
    codec = stream.codec_context
    container.seek(packets[0].pts, stream=stream)
    chosen = Chosen(len(shown), {}, {})
    fresh = False

    def keep(frames: list[av.VideoFrame]) -> bool:
        nonlocal fresh
        for frame in frames:
            if fresh and not frame.key_frame:
                return False  # a key frame that needs those before it
            fresh = False
            if frame.pts in wanted:
                index = wanted[frame.pts]
                chosen.images[index], chosen.times[index] = _image(frame), float(frame.pts * (stream.time_base or 0))
        return True

    position, behind = -1, -1
    for packet in container.demux(stream):
        if packet.size == 0:
            break
        position += 1
        if position == len(packets) or packet.pts != packets[position].pts:
            return None  # the file does not begin where it did
        if position not in needed:
            continue
        if position > behind + 1 and behind >= 0:
            if not keep(codec.decode(None)):
                return None
            codec.flush_buffers()
            fresh = True
        codec.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
        if not keep(codec.decode(packet)):
            return None
        behind = position
        if behind == max(needed):
            break
    if not keep(codec.decode(None)) or len(chosen.images) < len(wanted):
        return None
    return chosen


def _needed(packets: list[_Packet], wanted: Collection[int]) -> set[int]:
    """Return the positions of the packets that lead to the frames shown at `wanted`: each from its key frame on."""
    needed: set[int] = set()
    keys = [position for position, packet in enumerate(packets) if packet.key]
    for position, packet in enumerate(packets):
        if packet.pts in wanted:
            # In an open group of pictures a frame may be shown before the key frame that it is decoded after.
            key = next(k for k in reversed(keys[: bisect_right(keys, position)]) if packets[k].pts <= packet.pts)
            needed.update(range(key, position + 1))
    return needed


def _pick_in_order(path: Path, choose: Callable[[int], Iterable[int]], guess: int, threads: int) -> Chosen:
    """Decode all of a video, and once more where it does not have the `guess` of frames that the container claims."""
    while True:
        wanted = set(choose(guess)) if guess else set()
        chosen, total = Chosen(guess, {}, {}), 0
        for time, frame in _frames(path, threads):
            if total in wanted:
                chosen.images[total], chosen.times[total] = _image(frame), time
            total += 1
        if total == guess:
            return chosen
        guess = total
