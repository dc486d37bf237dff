"""Select frames of a video by number, decoding as few others as possible."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

import av
from PIL import Image

from tsmzoo.data.address import NetworkAddress
from tsmzoo.data.decode import Place, open_video, timed_frames
from tsmzoo.data.orientation import Orientations, upright
from tsmzoo.data.timing import clock

# A frame's index is its position in display order. If the container has the display time of every packet, that order is
# known before decoding. Then only the packets that lead to a wanted frame are decoded: from the key frame before it on,
# without frames that no other refers to. Else the video is decoded from its start.

#: Containers and codecs whose packets are frames, one to one, with display times and true key frames.
_INDEXED = ({"mov", "mp4", "matroska", "webm"}, {"h264", "hevc", "mjpeg", "vp9", "av1", "mpeg4"})


@dataclass(frozen=True)
class SelectedFrames:
    """Some frames of a video by index, RGB and upright, and the time of each in seconds."""

    #: Number of frames of the whole video.
    total: int
    images: dict[int, Image.Image]
    times: dict[int, float]


def pick(path: Place, choose: Callable[[int], Iterable[int]], threads: int = 0) -> SelectedFrames:
    """Return the frames of a video whose indices `choose` returns for the number of frames.

    They equal those from decoding the whole video, bit for bit if it is undamaged. `choose` is called again if the
    container counts wrongly; its last result holds. Raises VideoError.
    """
    with open_video(path, threads) as (container, stream):
        guess = stream.frames
        try:
            # A network stream is read once.
            packets = None if isinstance(path, NetworkAddress) else _index(container, stream)
            if packets is not None and (found := _pick_indexed(container, stream, packets, choose)) is not None:
                return found
        except av.error.FFmpegError:
            pass  # damaged: decoding in order gets as far as it can
    return _pick_in_order(path, choose, guess, threads)


@dataclass(frozen=True)
class _Packet:
    """A packet, in decoding order."""

    pts: int
    key: bool


def _index(container: av.container.InputContainer, stream: av.VideoStream) -> list[_Packet] | None:
    """Return all packets of a stream without decoding, or None if they do not determine the frames."""
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
    """Say whether display times determine the order in which a decoder returns the frames."""
    if not packets or not packets[0].key or len({packet.pts for packet in packets}) < len(packets):
        return False
    before, key = -math.inf, packets[0].pts
    for packet in packets[1:]:
        if packet.key:
            if packet.pts < key:
                return False
            before, key = key, packet.pts
        elif packet.pts < before:
            return False  # shown before its group of pictures
    # False if decoding times were written as display times, though the codec reorders frames.
    return not reorders or len(packets) == 1 or any(one.pts > other.pts for one, other in itertools.pairwise(packets))


def _pick_indexed(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    packets: list[_Packet],
    choose: Callable[[int], Iterable[int]],
) -> SelectedFrames | None:
    """Decode what the wanted frames need; None if the decoder returns other frames than the packets announced."""
    shown = sorted(packet.pts for packet in packets)
    ticking = clock(stream)
    times = [ticking.at(float(pts * (stream.time_base or 0))) for pts in shown]
    wanted = {shown[index]: index for index in choose(len(shown))}
    needed = _needed(packets, wanted.keys())
    codec = stream.codec_context
    container.seek(packets[0].pts, stream=stream)
    chosen = SelectedFrames(len(shown), {}, {})
    fresh, last = False, -math.inf
    turns = Orientations()

    def keep(frames: list[av.VideoFrame]) -> bool:
        nonlocal fresh, last
        for frame in frames:
            if fresh and not frame.key_frame:
                return False  # a key frame that refers to frames before it
            if frame.pts is None or frame.pts <= last:
                return False  # not in the order of display times
            fresh, last = False, frame.pts
            matrix = turns.of(frame)
            if frame.pts in wanted:
                index = wanted[frame.pts]
                chosen.images[index], chosen.times[index] = upright(frame, matrix), times[index]
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
    """Return the positions of the packets needed for the frames with display times `wanted`, key frames first."""
    needed: set[int] = set()
    keys = [position for position, packet in enumerate(packets) if packet.key]
    for position, packet in enumerate(packets):
        if packet.pts in wanted:
            # In an open group of pictures a frame may be shown before the key frame that precedes it in decoding order.
            before = keys[: bisect_right(keys, position)]
            key = next((k for k in reversed(before) if packets[k].pts <= packet.pts), 0)
            needed.update(range(key, position + 1))
    return needed


#: The most frames that a header is believed to claim: those of more than a day.
_MOST_FRAMES = 10_000_000


def _pick_in_order(path: Place, choose: Callable[[int], Iterable[int]], guess: int, threads: int) -> SelectedFrames:
    """Decode the whole video, and once more if it does not have the `guess` of frames that the container claims."""
    if guess > _MOST_FRAMES:
        guess = 0
    while True:
        wanted = set(choose(guess)) if guess else set()
        chosen, total, turns = SelectedFrames(guess, {}, {}), 0, Orientations()
        for time, frame in timed_frames(path, threads):
            matrix = turns.of(frame)
            if total in wanted:
                chosen.images[total], chosen.times[total] = upright(frame, matrix), time
            total += 1
        if total == guess:
            return chosen
        guess = total
