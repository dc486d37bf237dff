"""Picking frames: those that decoding everything and counting gives, to the bit, whatever the file."""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tsmzoo.data import decode, orientation, seek
from tsmzoo.errors import VideoError

FRAMES = 33
#: Key frames every 10 frames, and three in a row that others do not refer to.
GROUPS = "keyint=10:min-keyint=10:scenecut=0:bframes=3:b-adapt=0"
X264 = {"x264-params": f"{GROUPS}:threads=1"}
OPEN = {"x264-params": f"{GROUPS}:threads=1:open-gop=1"}


def moving(count: int = FRAMES, width: int = 64, height: int = 48) -> list[np.ndarray]:
    """A bar that moves over noise that moves."""
    noise = np.random.default_rng(0).integers(0, 256, (height, width + 3 * count, 3), dtype="uint8")
    frames = [noise[:, 3 * number : 3 * number + width].copy() for number in range(count)]
    for number, frame in enumerate(frames):
        frame[:, 5 * number % width : 5 * number % width + 12, 1] = 230
    return frames


def write(
    path: Path,
    codec: str,
    options: dict[str, str] | None = None,
    *,
    frames: Sequence[np.ndarray] | None = None,
    pixels: str = "yuv420p",
    times: Sequence[int] | None = None,
    **container_options: str,
) -> Path:
    """Write frames, H, W, RGB; `times` are in milliseconds."""
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {codec}")
    frames = moving() if frames is None else frames
    with av.open(str(path), "w", options=container_options) as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        if times:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, array in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(array, "rgb24")
            if times:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def everything(path: Path) -> list[np.ndarray]:
    """Return all frames, by PyAV alone; a file that breaks off ends early."""
    frames = []
    with av.open(str(path)) as container:
        try:
            for frame in container.decode(video=0):
                frames.append(frame.to_ndarray(format="rgb24"))
        except av.error.FFmpegError:
            assert frames
    return frames


def assert_picked(path: Path, whole: Sequence[np.ndarray], indices: Sequence[int]) -> None:
    told = []

    def choose(total: int) -> Sequence[int]:
        told.append(total)
        return indices

    chosen = seek.pick(path, choose, threads=1)
    assert chosen.total == told[-1] == len(whole)
    assert chosen.images.keys() == chosen.times.keys() == set(indices)
    for index, image in chosen.images.items():
        assert np.array_equal(image, whole[index]), f"frame {index} of {indices}"


def assert_all_are_picked(path: Path, count: int | None = FRAMES, step: int = 4) -> None:
    """Check frames alone, some together, and all."""
    whole = everything(path)
    assert count is None or len(whole) == count
    rng = np.random.default_rng(0)
    several = [sorted(rng.choice(len(whole), min(4, len(whole)), replace=False).tolist()) for _ in range(6)]
    for indices in [*([index] for index in range(0, len(whole), step)), *several, range(len(whole))]:
        assert_picked(path, whole, indices)


@pytest.fixture
def in_order(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """List the files that are decoded from their start."""
    calls: list[Path] = []
    pick = seek._pick_in_order

    def counted(path: Path, *arguments: object) -> seek.SelectedFrames:
        calls.append(path)
        return pick(path, *arguments)

    monkeypatch.setattr(seek, "_pick_in_order", counted)
    return calls


# --- files that need not be decoded whole ----------------------------------------------------------------------------

INDEXED: dict[str, tuple[str, str, dict[str, str]]] = {
    "h264": ("v.mp4", "libx264", X264),
    "h264 in Matroska": ("v.mkv", "libx264", X264),
    "h264, frames between that others refer to": ("v.mp4", "libx264", {"x264-params": X264["x264-params"] + ":ref=4"}),
    "h264, open groups": ("v.mp4", "libx264", OPEN),
    "h264, open groups in Matroska": ("v.mkv", "libx264", OPEN),
    "h264, interlaced": ("v.mp4", "libx264", {"x264-params": X264["x264-params"] + ":interlaced=1"}),
    "h264, refreshed bit by bit": ("v.mp4", "libx264", {"x264-params": "keyint=infinite:intra-refresh=1:bframes=0"}),
    "hevc": ("v.mp4", "libx265", {"x265-params": f"{GROUPS}:open-gop=0:log-level=none:pools=1"}),
    "hevc, open groups": ("v.mkv", "libx265", {"x265-params": f"{GROUPS}:open-gop=1:log-level=none:pools=1"}),
    "vp9": ("v.webm", "libvpx-vp9", {"g": "10", "lag-in-frames": "16", "auto-alt-ref": "1", "cpu-used": "8"}),
    "mpeg4": ("v.mp4", "mpeg4", {"g": "10", "bf": "2"}),
    "motion jpeg": ("v.mp4", "mjpeg", {}),
}


@pytest.mark.parametrize("kind", INDEXED)
def test_frames_are_those_that_counting_gives(kind: str, in_order: list[Path], tmp_path: Path) -> None:
    name, codec, options = INDEXED[kind]
    path = write(tmp_path / name, codec, options, pixels="yuvj420p" if codec == "mjpeg" else "yuv420p")
    assert_all_are_picked(path, step=1)
    assert in_order == []


@pytest.mark.parametrize(
    ("options", "packets"),
    [
        # Shown 24th: its group from the key frame, number 20, up to what it refers to, number 24, and itself.
        pytest.param(X264, 5, id="closed groups"),
        pytest.param({"x264-params": "keyint=1"}, 1, id="key frames alone"),
    ],
)
def test_only_what_leads_to_a_frame_is_decoded(
    options: dict[str, str], packets: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = write(tmp_path / "v.mp4", "libx264", options)
    needed, images = [], []
    lead, image = seek._needed, orientation.as_image
    monkeypatch.setattr(seek, "_needed", lambda *arguments: needed.append(lead(*arguments)) or needed[-1])
    monkeypatch.setattr(orientation, "as_image", lambda frame: images.append(frame) or image(frame))
    seek.pick(path, lambda _: [23])
    assert len(images) == 1
    assert len(needed[0]) <= packets


@pytest.fixture(scope="module")
def grouped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[np.ndarray]]:
    """A file of open groups of pictures, and its frames."""
    path = write(tmp_path_factory.mktemp("video") / "v.mp4", "libx264", OPEN)
    return path, everything(path)


@settings(max_examples=40, deadline=None)
@given(indices=st.sets(st.integers(0, FRAMES - 1), min_size=1).map(sorted))
def test_any_frames_are_those_that_counting_gives(indices: list[int], grouped: tuple[Path, list[np.ndarray]]) -> None:
    assert_picked(*grouped, indices)


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_threads_change_nothing(threads: int, grouped: tuple[Path, list[np.ndarray]]) -> None:
    path, whole = grouped
    for index in (0, 9, 23, FRAMES - 1):
        assert np.array_equal(seek.pick(path, lambda _, i=index: [i], threads).images[index], whole[index])


# --- files whose packets do not tell the frames ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        pytest.param("v.avi", "mpeg4", {"g": "10", "bf": "2"}, id="no times of display"),
        pytest.param("v.ts", "libx264", X264, id="transport stream"),
        pytest.param("v.flv", "libx264", X264, id="flash"),
        pytest.param("v.mkv", "ffv1", {}, id="a codec that is not on the list"),
    ],
)
def test_elsewhere_the_video_is_decoded_from_its_start(
    name: str, codec: str, options: dict[str, str], in_order: list[Path], tmp_path: Path
) -> None:
    path = write(tmp_path / name, codec, options, pixels="bgr0" if codec == "ffv1" else "yuv420p")
    whole = everything(path)
    assert len(whole) == FRAMES
    for indices in ([0], [23], [FRAMES - 1], [3, 12, 30]):
        assert_picked(path, whole, indices)
    assert in_order == [path] * 4


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv"])
@pytest.mark.parametrize("share", [0.4, 0.8])
def test_a_file_that_breaks_off_has_the_frames_that_are_there(name: str, share: float, tmp_path: Path) -> None:
    content = write(tmp_path / f"whole-{name}", "libx264", X264, movflags="faststart").read_bytes()
    path = tmp_path / name
    path.write_bytes(content[: int(share * len(content))])
    assert 0 < len(everything(path)) < FRAMES
    assert_all_are_picked(path, None)


@pytest.mark.parametrize("dropped", [1, 12])
@pytest.mark.parametrize("name", ["v.mp4", "v.mkv"])
def test_a_file_that_does_not_begin_with_a_key_frame(name: str, dropped: int, tmp_path: Path) -> None:
    """What a stream that is cut without decoding it gives."""
    whole = write(tmp_path / "whole.mp4", "libx264", X264)
    path = tmp_path / name
    with av.open(str(whole)) as source, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in itertools.islice((p for p in source.demux(video=0) if p.size), dropped, None):
            packet.stream = stream
            container.mux(packet)
    assert_all_are_picked(path, None)


@pytest.mark.parametrize("frames", [3, 20])
def test_what_an_edit_list_cuts_off_does_not_count(frames: int, tmp_path: Path) -> None:
    content = bytearray(write(tmp_path / "whole.mp4", "libx264", X264).read_bytes())
    start = content.index(b"elst") + 16  # past version, number and duration
    (begun,) = struct.unpack_from(">i", content, start)
    struct.pack_into(">i", content, start, begun + frames * 512)  # ticks of a frame
    path = tmp_path / "v.mp4"
    path.write_bytes(content)
    assert_all_are_picked(path, FRAMES - frames)


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv"])
def test_an_index_that_is_not_there_is_a_mistake_of_the_rule(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / name, "libx264", X264, frames=moving(3))
    with pytest.raises(IndexError):
        seek.pick(path, lambda total: [total])


# --- times, sizes, turns ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv"])
def test_frames_may_come_at_any_time(name: str, in_order: list[Path], tmp_path: Path) -> None:
    times = (5000 + np.cumsum(np.random.default_rng(0).integers(5, 120, FRAMES))).tolist()
    assert_all_are_picked(write(tmp_path / name, "libx264", X264, times=times))
    assert in_order == []


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "v.avi"])
@pytest.mark.parametrize("index", [0, 13, FRAMES - 1])
def test_times_are_those_of_decoding(name: str, index: int, tmp_path: Path) -> None:
    """Also of a frame that the decoder gives only at its end, where packets have no clock."""
    path = write(tmp_path / name, "mpeg4" if name.endswith("avi") else "libx264")
    times = [time for time, _ in decode.decode(path)]
    found = seek.pick(path, lambda _: [index, index // 2]).times
    assert not any(map(math.isnan, found.values()))
    assert found == pytest.approx({each: times[each] for each in (index, index // 2)}, abs=1e-6)


def test_one_frame_is_a_video(in_order: list[Path], tmp_path: Path) -> None:
    for name in ("v.mp4", "v.mkv"):
        assert_all_are_picked(write(tmp_path / name, "libx264", X264, frames=moving(1)), 1)
    assert in_order == []
    assert_all_are_picked(write(tmp_path / "v.avi", "mpeg4", frames=moving(1)), 1)


@pytest.mark.parametrize(("width", "height"), [(97, 33), (33, 97), (17, 17)])
def test_sides_may_be_odd(width: int, height: int, tmp_path: Path) -> None:
    frames = moving(12, width, height)
    path = write(tmp_path / "v.mp4", "libx264", X264, frames=frames, pixels="yuv444p")
    assert_all_are_picked(path, 12)
    assert seek.pick(path, lambda _: [7]).images[7].size == (width, height)


#: Clockwise turns that a phone asks for, as QuickTime's matrix (a, b, c, d) and as Pillow's name for it.
TURNS = {
    90: ((0, 1, -1, 0), Image.Transpose.ROTATE_270),
    180: ((-1, 0, 0, -1), Image.Transpose.ROTATE_180),
    270: ((0, -1, 1, 0), Image.Transpose.ROTATE_90),
}


@pytest.mark.parametrize("degrees", TURNS)
def test_a_turned_video_is_put_upright(degrees: int, in_order: list[Path], tmp_path: Path) -> None:
    (a, b, c, d), turn = TURNS[degrees]
    path = write(tmp_path / "v.mp4", "libx264", X264)
    plain = everything(path)
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 4 + 40  # past version, times, track, duration, layer, volume
    struct.pack_into(">9i", content, start, *(n << 16 for n in (a, b, 0, c, d, 0, 0, 0)), 1 << 30)
    path.write_bytes(content)
    upright = [np.asarray(Image.fromarray(frame).transpose(turn)) for frame in plain]
    for indices in ([0], [5, 23], [FRAMES - 1]):
        assert_picked(path, upright, indices)
    assert in_order == []


# --- files that are none ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(None, "no file", id="missing"),
        pytest.param(b"", "empty", id="empty"),
        pytest.param(b"no video" * 100, "cannot be decoded", id="text"),
    ],
)
def test_what_is_no_video_is_refused(content: bytes | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(VideoError, match=words) as caught:
        seek.pick(path, lambda _: [0])
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".avi", ".mov"])
def test_titles_that_are_not_utf_8_do_not_matter(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"titled{ending}"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "VidXXo"
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 32
        for _ in range(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), "uint8"))))
        container.mux(stream.encode())
    content = path.read_bytes()
    assert b"VidXXo" in content
    path.write_bytes(content.replace(b"VidXXo", b"Vid\xe9\xffo"))
    assert len(list(decode.decode(path))) == 5
