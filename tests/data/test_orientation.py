"""Videos that lie turned or mirrored in their file come out upright, whatever reads them."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext
from PIL import Image
from typer.testing import CliRunner

from tsmzoo import cli, registry
from tsmzoo.data import decode, seek, select
from tsmzoo.data.dataset import Video
from tsmzoo.exporting import calibration
from tsmzoo.typing import Array

FRAMES = 12
#: Colours of the upright picture's corners: left and right above, left and right below.
CORNERS = np.array([[230, 30, 30], [30, 230, 30], [30, 30, 230], [220, 220, 220]])

Turn = Callable[[Array], Array]
#: How a player shows what lies in the file, as QuickTime's a, b, c, d, and what must lie there to be shown upright.
ORIENTATIONS: dict[str, tuple[tuple[int, int, int, int], Turn]] = {
    "as it lies": ((1, 0, 0, 1), lambda u: u),
    "mirrored": ((-1, 0, 0, 1), lambda u: u[:, ::-1]),
    "upside down": ((-1, 0, 0, -1), lambda u: u[::-1, ::-1]),
    "mirrored upside down": ((1, 0, 0, -1), lambda u: u[::-1]),
    "clockwise": ((0, 1, -1, 0), lambda u: np.rot90(u, 1)),
    "counterclockwise": ((0, -1, 1, 0), lambda u: np.rot90(u, -1)),
    "across the diagonal": ((0, 1, 1, 0), lambda u: u.transpose(1, 0, 2)),
    "across the other diagonal": ((0, -1, -1, 0), lambda u: np.rot90(u, 2).transpose(1, 0, 2)),
}
orientations = pytest.mark.parametrize("name", ORIENTATIONS)


def picture() -> Array:
    """Return the upright picture, 48 high and 64 wide, a colour a quarter."""
    return CORNERS.reshape(2, 2, 3).repeat(24, 0).repeat(32, 1).astype(np.uint8)


def corners(image: Image.Image | Array) -> Array:
    pixels = np.asarray(image).astype(int)
    return np.array([pixels[y, x] for y in (6, -7) for x in (6, -7)])


def assert_upright(image: Image.Image | Array) -> None:
    assert np.shape(np.asarray(image)) == (48, 64, 3)
    np.testing.assert_allclose(corners(image), CORNERS, atol=20)


def write(path: Path, stored: Array, group: int = 5) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"g": str(group)})
        stream.height, stream.width = stored.shape[:2]
        stream.pix_fmt = "yuv420p"
        for _ in range(FRAMES):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(stored), "rgb24")))
        container.mux(stream.encode())
    return path


def under(path: Path, matrix: tuple[int, ...]) -> Path:
    """Change the display matrix, a, b, c, d in 1/65536, of an MP4 or MOV file."""
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 4 + 40  # past version, times, track, duration, layer, volume
    a, b, c, d = matrix
    struct.pack_into(">9i", content, start, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path


def turned(path: Path, name: str) -> Path:
    matrix, stored = ORIENTATIONS[name]
    return under(write(path, stored(picture())), tuple(n << 16 for n in matrix))


def remuxed(path: Path, target: Path, degrees: int = 0, hflip: bool = False) -> Path:
    """Copy the packets of a video under another matrix: turned counterclockwise, then mirrored."""
    with av.open(str(path)) as given, av.open(str(target), "w") as container:
        stream = container.add_stream_from_template(given.streams.video[0])
        stream.set_display_rotation(degrees, hflip=hflip)
        for packet in given.demux(video=0):
            if packet.size:
                packet.stream = stream
                container.mux(packet)
    return target


@orientations
@pytest.mark.parametrize("ending", ["mp4", "mov"])
def test_all_orientations_are_put_upright(name: str, ending: str, tmp_path: Path) -> None:
    path = turned(tmp_path / f"v.{ending}", name)
    images = [image for _, image in decode.decode(path)]
    assert len(images) == FRAMES
    for image in images:
        assert_upright(image)
    for index in (0, 4, 11):  # decoded from the key frame before it alone
        assert np.array_equal(seek.pick(path, lambda _, i=index: [i]).images[index], images[index])


@orientations
def test_every_reader_sees_it_upright(name: str, tmp_path: Path) -> None:
    path = turned(tmp_path / "v.mp4", name)
    _, pictures = select.pick(Video("v", path, 0), lambda total: [0, total - 1])
    for picked in pictures.values():
        assert_upright(picked)
    (square, *_) = select.first(path, 48, 48)  # of --clip: C, H, W, cut in the middle
    wanted = np.asarray(Image.fromarray(picture()))[:, 8:56].transpose(2, 0, 1)
    np.testing.assert_allclose(square[:, 6::35, 6::35], wanted[:, 6::35, 6::35], atol=20)
    turned(tmp_path / "w.mp4", name)
    entry = registry.load().find("tsm_mbv2_motion")
    given = calibration.load_calibration(entry, tmp_path)
    first = given.clips[0, 0].transpose(1, 2, 0)
    np.testing.assert_allclose(corners(first), CORNERS, atol=20)


@orientations
def test_what_run_saves_is_upright(name: str, tmp_path: Path) -> None:
    path = turned(tmp_path / "v.mp4", name)
    saved = tmp_path / "saved.mp4"
    arguments = ["run", "tsm_mbv2_motion_online", str(path), "--save", str(saved)]
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 0, result.output
    with av.open(str(saved)) as container:
        pixels = next(container.decode(video=0)).to_ndarray(format="rgb24").astype(int)
    assert pixels.shape == (48, 64, 3)
    # Below stands the answer.
    np.testing.assert_allclose([pixels[6, 6], pixels[6, -7]], CORNERS[:2], atol=20)


@pytest.mark.parametrize("ending", ["mkv", "mov", "mp4"])
@pytest.mark.parametrize("hflip", [False, True])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_turns_of_other_containers(ending: str, degrees: int, hflip: bool, tmp_path: Path) -> None:
    stored = np.rot90(picture()[:, ::-1] if hflip else picture(), -degrees // 90)
    path = remuxed(write(tmp_path / "stored.mp4", stored), tmp_path / f"v.{ending}", degrees, hflip)
    for _, image in decode.decode(path):
        assert_upright(image)
    assert_upright(seek.pick(path, lambda _: [7]).images[7])


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("flip", ["", "horizontal", "vertical", "horizontal+vertical"])
def test_turns_that_stand_in_the_stream_itself(degrees: int, flip: str, tmp_path: Path) -> None:
    """As H.264 and HEVC say it (SEI): mirrored first, then turned counterclockwise."""
    stored = np.rot90(picture(), -degrees // 90)
    if "horizontal" in flip:
        stored = stored[:, ::-1]
    if "vertical" in flip:
        stored = stored[::-1]
    path = write(tmp_path / "plain.mp4", stored, FRAMES)
    said = f"rotate={degrees}" + (f":flip={flip}" if flip else "")
    with av.open(str(path)) as given, av.open(str(tmp_path / "v.mp4"), "w") as container:
        stream = container.add_stream_from_template(given.streams.video[0])
        described = f"h264_metadata=display_orientation=insert:{said}"
        change = BitStreamFilterContext(described, given.streams.video[0], stream)
        for packet in given.demux(video=0):
            for changed in change.filter(packet if packet.size else None):
                changed.stream = stream
                container.mux(changed)
    for _, image in decode.decode(tmp_path / "v.mp4"):
        assert_upright(image)
    assert_upright(seek.pick(tmp_path / "v.mp4", lambda _: [9]).images[9])


#: EXIF's number, and what lies in the file.
EXIF: dict[int, Turn] = {
    1: lambda u: u,
    2: lambda u: u[:, ::-1],
    3: lambda u: u[::-1, ::-1],
    4: lambda u: u[::-1],
    5: lambda u: u.transpose(1, 0, 2),
    6: lambda u: np.rot90(u, 1),
    7: lambda u: np.rot90(u, 2).transpose(1, 0, 2),
    8: lambda u: np.rot90(u, -1),
}


@pytest.mark.parametrize("number", EXIF)
def test_a_film_of_turned_photographs(number: int, tmp_path: Path) -> None:
    """PyAV does not know the side data of EXIF, beside which the matrix stands."""
    exif = Image.Exif()
    exif[0x0112] = number
    content = io.BytesIO()
    stored = np.ascontiguousarray(EXIF[number](picture()))
    Image.fromarray(stored).save(content, "JPEG", exif=exif, quality=95)
    path = tmp_path / "v.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.height, stream.width = stored.shape[:2]
        stream.pix_fmt = "yuvj420p"
        for index in range(3):
            packet = av.Packet(content.getvalue())
            packet.pts = packet.dts = index
            packet.time_base, packet.stream, packet.is_keyframe = Fraction(1, 10), stream, True
            container.mux(packet)
    images = [image for _, image in decode.decode(path)]
    assert len(images) == 3
    for image in images:
        assert_upright(image)


@pytest.mark.parametrize(
    ("matrix", "name"),
    [
        pytest.param((0, 0, 0, 0), "as it lies", id="nothing"),
        pytest.param((-(2**31), 0, 0, 2**31 - 1), "mirrored", id="as large as can be"),
        pytest.param((2 << 16, 0, 0, 1 << 15), "as it lies", id="stretched"),
        pytest.param((1000, 60000, -60000, 1000), "clockwise", id="nearly a quarter"),
        pytest.param((46341, 46341, -46341, 46341), "as it lies", id="half of a quarter"),
        pytest.param((1 << 16, 1 << 15, 0, 1 << 16), "as it lies", id="skewed"),
        pytest.param((1, 0, 0, -1), "mirrored upside down", id="tiny"),
    ],
)
def test_a_matrix_that_is_no_turn_is_taken_for_the_nearest(matrix: tuple[int, ...], name: str, tmp_path: Path) -> None:
    path = under(write(tmp_path / "v.mp4", ORIENTATIONS[name][1](picture())), matrix)
    for _, image in decode.decode(path):
        assert_upright(image)
