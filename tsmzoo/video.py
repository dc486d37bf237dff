"""Decoding videos, all frames or some, and writing them."""

from __future__ import annotations

import itertools
import math
import os
import struct
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

import av
import numpy as np
from av.filter import Graph
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Disposition
from PIL import Image

from tsmzoo.address import PROTOCOLS, Address
from tsmzoo.artifact import Array
from tsmzoo.errors import VideoError

#: Seconds by which a frame's time may be early: containers round to a millisecond.
CLOCK_SLACK = 2e-3
#: Frames a second of a video that does not say.
USUAL = Fraction(30)
#: The most that are believed.
_FASTEST = 1000
#: Frames by which it shows what their times are worth.
_AHEAD = 8
#: Seconds that times may jump back or ahead and still be meant.
_BACK, _GAP = 1.0, 3600.0
#: Of a format whose files hold no times (AVFMT_NOTIMESTAMPS).
_NO_TIMES = 0x80
#: Kinds of side data that FFmpeg may have.
_KINDS = 48
#: Seconds in which an address must be open, and in which a frame must come.
TIMEOUTS = (10.0, 8.0)

#: Parts of a display matrix that turn and mirror, a, b, c, d, in 1/65536.
_Matrix = tuple[int, int, int, int]
_AS_IT_LIES: _Matrix = (1, 0, 0, 1)

#: Where a video is.
Place = Path | Address


def decode(path: Place) -> Iterator[tuple[float, Image.Image]]:
    """Yield (time in seconds, RGB image) of each frame, upright; times begin at 0 and grow.

    A file that breaks off ends early. Raises VideoError where it gives no frame at all.
    """
    for time, image in decode_lazily(path):
        yield time, image()


def decode_lazily(
    path: Place, notify: Callable[[str], None] = lambda _: None
) -> Iterator[tuple[float, Callable[[], Image.Image]]]:
    """Do as `decode`, but turn a frame into an image only where it is asked for: most of a stream's are skipped."""
    turns = _Turns()
    for time, frame in _frames(path, notify=notify):
        yield time, partial(_upright, frame, turns.of(frame))


def first(path: Path) -> Image.Image:
    """Return the first frame, decoded by one thread. Raises VideoError where there is none."""
    turns = _Turns()
    with opened(path, threads=1) as (container, stream):
        for frame in _decoded(path, container, stream):
            return _upright(frame, turns.of(frame))
    raise VideoError(f"{path}: holds no frame; give a video")


def rate(path: Place) -> Fraction | None:
    """Return the frames a second that a video says it has. Raises VideoError."""
    with opened(path) as (container, stream):
        if container.format.flags & _NO_TIMES:  # which is told 25 for all of them
            return _nominal(stream)
        return stream.average_rate or stream.guessed_rate or None


def received(
    container: av.container.InputContainer, stream: av.VideoStream
) -> Iterator[tuple[float | None, Callable[[], Image.Image]]]:
    """Yield the time that each frame of a live source says it has, and what turns it into an image.

    Raises VideoError, which says why, where the source breaks off.
    """
    turns = _Turns()
    try:
        for frame in container.decode(stream):
            yield frame.time, partial(_upright, frame, turns.of(frame))
    except av.error.FFmpegError as error:
        raise VideoError(_why(error)) from None


def _frames(
    path: Place, threads: int = 0, notify: Callable[[str], None] = lambda _: None
) -> Iterator[tuple[float, av.VideoFrame]]:
    with opened(path, threads) as (container, stream):
        frames = _decoded(path, container, stream)
        head = list(itertools.islice(frames, _AHEAD))
        if not head:
            raise VideoError(f"{path}: holds no frame; give a video")
        times = _told(head)
        if times is None:
            nominal = float(_nominal(stream))
            notify(f"{path}: has no times; its frames are taken to be {nominal:g} a second, its nominal rate")
        ticking = clock(stream)
        for frame in itertools.chain(head, frames):
            yield ticking.at(times(frame) if times else None), frame


def _decoded(path: Place, container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.VideoFrame]:
    given = 0
    try:
        for frame in container.decode(stream):
            given += 1
            yield frame
    except av.error.FFmpegError as error:
        if isinstance(path, Address):
            raise VideoError(
                f"{path}: {'broke off' if given else 'gave no frame'} ({_why(error)}); try again"
            ) from None
        if not given:
            raise _undecodable(path, error) from None
    # A connection that ends between two packets looks like the end.
    if isinstance(path, Address) and given < stream.frames - _AHEAD:
        raise VideoError(f"{path}: broke off after {given} of {stream.frames} frames; try again")


def _why(error: av.error.FFmpegError) -> str:
    """Return what FFmpeg says of an error, without the name of the file, which may be an address with a password."""
    if isinstance(error, av.error.ExitError):
        return "nothing came for too long"
    return error.strerror or type(error).__name__


@contextmanager
def opened(path: Place, threads: int = 0) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """Open a video and its first stream of pictures; 0 threads are as many as there are cores. Raises VideoError."""
    if isinstance(path, Address):
        with connected(path) as container:
            yield container, _pictures(path, container, threads)
        return
    if not os.path.isfile(path):  # Path.is_file raises where the name is too long
        raise VideoError(f"{path}: is no file; give a video")
    try:
        if path.stat().st_size == 0:
            raise VideoError(f"{path}: is empty; give a video")
        # The bytes are read here and no protocol is open to FFmpeg: a playlist must not lead to other files or hosts.
        with path.open("rb") as file, _container(path, file) as container:
            yield container, _pictures(path, container, threads)
    except OSError as error:
        raise VideoError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None


def _pictures(path: Place, container: av.container.InputContainer, threads: int) -> av.VideoStream:
    # A cover that lies in the file is a stream, too.
    streams = sorted(container.streams.video, key=lambda stream: bool(stream.disposition & Disposition.attached_pic))
    if not streams:
        raise VideoError(f"{path}: has no video stream; give a video")
    stream = streams[0]
    if stream.codec_context is None:
        raise VideoError(f"{path}: cannot be decoded (no decoder knows it); give a video")
    stream.thread_type = "AUTO"
    stream.codec_context.thread_count = threads
    return stream


def _container(path: Path, file: IO[bytes]) -> av.container.InputContainer:
    try:
        return av.open(file, "r", options={"protocol_whitelist": "none"}, metadata_errors="replace")
    except av.error.FFmpegError as error:
        raise _undecodable(path, error) from None


def connected(address: Address) -> av.container.InputContainer:
    """Open what is at an address. Raises VideoError, at the latest when nothing has come for some seconds."""
    options = {
        "protocol_whitelist": PROTOCOLS,
        "rtsp_flags": "prefer_tcp",  # UDP is what firewalls drop
        # Of HTTP, where a file breaks off: it is gone on with from there.
        "reconnect": "1",
        "reconnect_max_retries": "3",
        "reconnect_delay_max": "4",
    }
    try:
        return av.open(address.url, "r", options=options, timeout=TIMEOUTS, metadata_errors="replace")
    except (av.error.FFmpegError, OSError) as error:
        why = _why(error) if isinstance(error, av.error.FFmpegError) else error.strerror
        raise VideoError(
            f"{address}: cannot be opened ({why}); check the address, and that it can be reached"
        ) from None


def _undecodable(path: Place, error: av.error.FFmpegError) -> VideoError:
    return VideoError(f"{path}: cannot be decoded ({error.strerror}); give a video")


# --- upright ---------------------------------------------------------------------------------------------------------


def _image(frame: av.VideoFrame) -> Image.Image:
    return Image.fromarray(frame.to_ndarray(format="rgb24"))


def _upright(frame: av.VideoFrame, matrix: _Matrix) -> Image.Image:
    """Return a frame in RGB as a player shows it: turned and mirrored as cameras record beside the pixels."""
    image = _image(frame)
    a, b, c, d = matrix
    # x, y of a pixel is shown at a x + c y, b x + d y. Of what is no quarter turn the nearest is taken.
    across = abs(b) + abs(c) > abs(a) + abs(d)
    left, up = (c < 0, b < 0) if across else (a < 0, d < 0)
    if not (across or left or up):
        return image
    pixels = np.asarray(image)
    if across:
        pixels = pixels.transpose(1, 0, 2)
    return Image.fromarray(np.ascontiguousarray(pixels[:: -1 if up else 1, :: -1 if left else 1]))


class _Turns:
    """Tells how each frame lies; ask of all that are decoded, in order.

    What a stream itself says (SEI) stands on one frame and holds till the next key frame.
    """

    def __init__(self) -> None:
        self._last: _Matrix = _AS_IT_LIES

    def of(self, frame: av.VideoFrame) -> _Matrix:
        try:
            found = _display_matrix(frame)
        except ValueError:  # PyAV does not know each kind of side data, such as EXIF
            found = _display_matrix(_known(frame))
        if found is not None:
            a, b, _, c, d = struct.unpack_from("=5i", found)
            self._last = a, b, c, d
        elif frame.key_frame:
            self._last = _AS_IT_LIES
        return self._last


def _display_matrix(frame: av.VideoFrame) -> bytes | None:
    every = cast("Iterable[Any]", frame.side_data)  # not a mapping of names to texts, as PyAV's stubs have it
    return next((bytes(data) for data in every if data.type.name == "DISPLAYMATRIX"), None)


def _known(frame: av.VideoFrame) -> av.VideoFrame:
    """Return a frame without the side data that PyAV does not know."""
    known = {kind.value for kind in cast("Iterable[Any]", SideDataType)}
    graph = Graph()
    last = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or Fraction(1, 1000)
    )
    for kind in set(range(_KINDS)) - known:
        step = graph.add("sidedata", f"mode=delete:type={kind}")
        last.link_to(step)
        last = step
    last.link_to(graph.add("buffersink"))
    graph.configure()
    graph.push(frame)
    return cast("av.VideoFrame", graph.pull())


# --- times -----------------------------------------------------------------------------------------------------------


class Clock:
    """Turns the times that frames say into such as begin at 0 and only grow."""

    def __init__(self, rate: Fraction) -> None:
        self._step = self._pace = float(1 / rate)
        self._begun: float | None = None
        self._last: float | None = None

    def at(self, said: float | None) -> float:
        """Return the time of the next frame, which says `said`, or nothing."""
        next_ = 0.0 if self._last is None else self._last + self._pace
        now = next_
        if said is not None:
            if self._begun is None:
                self._begun = said - next_
            now = said - self._begun
            if self._last is not None and not self._last < now < self._last + _GAP:
                if not self._last - _BACK < now < self._last + _GAP:
                    self._begun = said - next_  # files that were joined, or a clock that was set
                now = next_
        if self._last is not None:
            self._pace = min(self._step, now - self._last)
        self._last = now
        return now


def _told(head: Sequence[av.VideoFrame]) -> Callable[[av.VideoFrame], float | None] | None:
    """Return how the frames of a video, of which the first are given, say their times; None where they do not."""

    def decoding(frame: av.VideoFrame) -> float | None:
        return None if frame.dts is None or frame.time_base is None else float(frame.dts * frame.time_base)

    def display(frame: av.VideoFrame) -> float | None:
        return None if frame.pts is None or frame.time_base is None else float(frame.pts * frame.time_base)

    def grow(times: Iterable[float | None]) -> bool:
        there = [time for time in times if time is not None]
        return bool(there) and all(one < other for one, other in itertools.pairwise(there))

    if all(display(frame) is None for frame in head):
        return decoding if grow(map(decoding, head)) else None
    # A container that keeps the order of decoding alone (AVI) gives frames that are shown in another no times of
    # display, and FFmpeg makes some up that go to and fro.
    return decoding if not grow(map(display, head)) and grow(map(decoding, head)) else display


def clock(stream: av.VideoStream) -> Clock:
    """Return a clock for a stream's frames."""
    return Clock(_nominal(stream))


def _nominal(stream: av.VideoStream) -> Fraction:
    rates = (stream.guessed_rate, stream.average_rate)
    return next((rate for rate in rates if rate and 1 <= rate <= _FASTEST), USUAL)


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


def pick(path: Place, choose: Callable[[int], Iterable[int]], threads: int = 0) -> Chosen:
    """Return the frames of a video whose indices `choose` gives, told their number.

    They are those that decoding all of it and counting would give, bit for bit where it is undamaged. `choose` may be
    called again where the container counts wrongly; its last answer holds. Raises VideoError.
    """
    with opened(path, threads) as (container, stream):
        guess = stream.frames
        try:
            # What comes over a network comes once.
            packets = None if isinstance(path, Address) else _index(container, stream)
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
    return packets if _in_order(packets, reorders=stream.codec_context.has_b_frames) else None


def _in_order(packets: list[_Packet], *, reorders: bool) -> bool:
    """Say whether times of display tell in which order a decoder gives the frames."""
    if not packets or not packets[0].key or len({packet.pts for packet in packets}) < len(packets):
        return False
    before, key = -math.inf, packets[0].pts
    for packet in packets[1:]:
        if packet.key:
            if packet.pts < key:
                return False
            before, key = key, packet.pts
        elif packet.pts < before:
            return False  # shown before the group that it is not of
    # Times of decoding that were written for those of display: frames that are shown in another order lack them.
    return not reorders or len(packets) == 1 or any(one.pts > other.pts for one, other in itertools.pairwise(packets))


def _pick_indexed(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    packets: list[_Packet],
    choose: Callable[[int], Iterable[int]],
) -> Chosen | None:
    """Decode what the wanted frames need; None where what comes out is not what the packets promised."""
    shown = sorted(packet.pts for packet in packets)
    ticking = clock(stream)
    times = [ticking.at(float(pts * (stream.time_base or 0))) for pts in shown]
    wanted = {shown[index]: index for index in choose(len(shown))}
    needed = _needed(packets, wanted.keys())
    codec = stream.codec_context
    container.seek(packets[0].pts, stream=stream)
    chosen = Chosen(len(shown), {}, {})
    fresh, last = False, -math.inf
    turns = _Turns()

    def keep(frames: list[av.VideoFrame]) -> bool:
        nonlocal fresh, last
        for frame in frames:
            if fresh and not frame.key_frame:
                return False  # a key frame that needs those before it
            if frame.pts is None or frame.pts <= last:
                return False  # not the order of their times
            fresh, last = False, frame.pts
            matrix = turns.of(frame)
            if frame.pts in wanted:
                index = wanted[frame.pts]
                chosen.images[index], chosen.times[index] = _upright(frame, matrix), times[index]
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
            before = keys[: bisect_right(keys, position)]
            key = next((k for k in reversed(before) if packets[k].pts <= packet.pts), 0)
            needed.update(range(key, position + 1))
    return needed


#: Frames that a container may claim: more than a day's, by a header that lies.
_MOST_FRAMES = 10_000_000


def _pick_in_order(path: Place, choose: Callable[[int], Iterable[int]], guess: int, threads: int) -> Chosen:
    """Decode all of a video, and once more where it does not have the `guess` of frames that the container claims."""
    if guess > _MOST_FRAMES:
        guess = 0
    while True:
        wanted = set(choose(guess)) if guess else set()
        chosen, total, turns = Chosen(guess, {}, {}), 0, _Turns()
        for time, frame in _frames(path, threads):
            matrix = turns.of(frame)
            if total in wanted:
                chosen.images[total], chosen.times[total] = _upright(frame, matrix), time
            total += 1
        if total == guess:
            return chosen
        guess = total
