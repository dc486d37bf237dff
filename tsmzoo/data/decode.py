"""Decode videos: all frames in order, or the first one."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import IO

import av
from av.stream import Disposition
from PIL import Image

from tsmzoo.callbacks import Notify, silent
from tsmzoo.data.address import PROTOCOLS, NetworkAddress
from tsmzoo.data.orientation import Orientations, upright
from tsmzoo.data.timing import LOOKAHEAD, NO_TIMESTAMPS, clock, nominal_rate, time_source
from tsmzoo.errors import VideoError

#: Timeouts in seconds for opening an address, and for the next frame.
TIMEOUTS = (10.0, 8.0)

#: Location of a video.
Place = Path | NetworkAddress


def decode(path: Place) -> Iterator[tuple[float, Image.Image]]:
    """Yield (time in seconds, upright RGB image) of each frame; times begin at 0 and increase.

    A truncated file ends early. Raises VideoError if it gives no frame at all.
    """
    for time, image in decode_lazily(path):
        yield time, image()


def decode_lazily(path: Place, notify: Notify = silent) -> Iterator[tuple[float, Callable[[], Image.Image]]]:
    """Like `decode`, but yield a function that makes the image: most frames of a stream are skipped."""
    turns = Orientations()
    for time, frame in timed_frames(path, notify=notify):
        yield time, partial(upright, frame, turns.of(frame))


def first(path: Path) -> Image.Image:
    """Return the first frame, decoded by one thread. Raises VideoError if there is none."""
    turns = Orientations()
    with open_video(path, threads=1) as (container, stream):
        for frame in _decoded(path, container, stream):
            return upright(frame, turns.of(frame))
    raise VideoError(f"{path}: holds no frame; give a video")


def rate(path: Place) -> Fraction | None:
    """Return the frame rate in the header of a video, in frames per second, or None. Raises VideoError."""
    with open_video(path) as (container, stream):
        if container.format.flags & NO_TIMESTAMPS:  # FFmpeg reports 25 for all of them
            return nominal_rate(stream)
        return stream.average_rate or stream.guessed_rate or None


def decode_live(
    container: av.container.InputContainer, stream: av.VideoStream
) -> Iterator[tuple[float | None, Callable[[], Image.Image]]]:
    """Yield the timestamp of each frame of a live source in seconds, or None, and a function that makes the image.

    Raises VideoError, with the reason, when the source breaks off.
    """
    turns = Orientations()
    try:
        for frame in container.decode(stream):
            yield frame.time, partial(upright, frame, turns.of(frame))
    except av.error.FFmpegError as error:
        raise VideoError(_reason(error)) from None


def timed_frames(path: Place, threads: int = 0, notify: Notify = silent) -> Iterator[tuple[float, av.VideoFrame]]:
    """Yield the time in seconds and the frame, as decoded. Raises VideoError if there is no frame."""
    with open_video(path, threads) as (container, stream):
        frames = _decoded(path, container, stream)
        head = list(itertools.islice(frames, LOOKAHEAD))
        if not head:
            raise VideoError(f"{path}: holds no frame; give a video")
        times = time_source(head)
        if times is None:
            nominal = float(nominal_rate(stream))
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
        if isinstance(path, NetworkAddress):
            raise VideoError(
                f"{path}: {'broke off' if given else 'gave no frame'} ({_reason(error)}); try again"
            ) from None
        if not given:
            raise _undecodable(path, error) from None
    # A connection that breaks between two packets looks like the end of the video.
    if isinstance(path, NetworkAddress) and given < stream.frames - LOOKAHEAD:
        raise VideoError(f"{path}: broke off after {given} of {stream.frames} frames; try again")


def _reason(error: av.error.FFmpegError) -> str:
    """Return FFmpeg's reason without the name of the file, which may be an address with a password."""
    if isinstance(error, av.error.ExitError):
        return "nothing came for too long"
    return error.strerror or type(error).__name__


@contextmanager
def open_video(path: Place, threads: int = 0) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """Open a video and its first video stream. `threads` 0 means one per core. Raises VideoError."""
    if isinstance(path, NetworkAddress):
        with open_address(path) as container:
            yield container, _pictures(path, container, threads)
        return
    if not os.path.isfile(path):  # Path.is_file raises where the name is too long
        raise VideoError(f"{path}: is no file; give a video")
    try:
        if path.stat().st_size == 0:
            raise VideoError(f"{path}: is empty; give a video")
        # The bytes are read here, and FFmpeg has no protocol: a playlist must not lead to other files or hosts.
        with path.open("rb") as file, _container(path, file) as container:
            yield container, _pictures(path, container, threads)
    except OSError as error:
        raise VideoError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None


def _pictures(path: Place, container: av.container.InputContainer, threads: int) -> av.VideoStream:
    # A cover picture in the file is a stream, too.
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


def open_address(address: NetworkAddress) -> av.container.InputContainer:
    """Open a network address. Raises VideoError, after a timeout of some seconds at the latest."""
    options = {
        "protocol_whitelist": PROTOCOLS,
        "rtsp_flags": "prefer_tcp",  # firewalls drop UDP
        # Of HTTP: a transfer that breaks is resumed.
        "reconnect": "1",
        "reconnect_max_retries": "3",
        "reconnect_delay_max": "4",
    }
    try:
        return av.open(address.url, "r", options=options, timeout=TIMEOUTS, metadata_errors="replace")
    except (av.error.FFmpegError, OSError) as error:
        why = _reason(error) if isinstance(error, av.error.FFmpegError) else error.strerror
        raise VideoError(
            f"{address}: cannot be opened ({why}); check the address, and that it can be reached"
        ) from None


def _undecodable(path: Place, error: av.error.FFmpegError) -> VideoError:
    return VideoError(f"{path}: cannot be decoded ({error.strerror}); give a video")
