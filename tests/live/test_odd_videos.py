"""Files that are no videos, odd videos, and how frames are prepared."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from tsmzoo import registry
from tsmzoo.artifact.contract import Contract
from tsmzoo.data import decode, sampling, seek, transforms
from tsmzoo.errors import VideoError

SHARED = Path(__file__).resolve().parents[3] / "shared"


ZOO = registry.load()


SIZE, RESIZE = 32, 36


def test_videos_that_give_nothing_are_told_in_one_line(
    toy: Path,
    clip: Path,
    tmp_path: Path,
    invoke: Callable[..., Any],
    moving: Callable[..., Any],
    refusal: Callable[..., Any],
    write: Callable[..., Any],
) -> None:
    content = clip.read_bytes()
    files = {
        "empty.mp4": b"",
        "text.mp4": b"this is no video\n" * 50,
        "cut.mp4": content[: len(content) // 2],  # the index stands at the end
        "noise.mp4": np.random.default_rng(0).bytes(5000),
        "list.m3u8": b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n",
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), "int16"), format="s16", layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    unknown = write(tmp_path / "unknown.avi", moving(3), rate=10)
    unknown.write_bytes(unknown.read_bytes().replace(b"FMP4", b"XQZW"))
    (tmp_path / "folder.mp4").mkdir()
    for name in (*files, "sound.wav", "unknown.avi", "folder.mp4", "missing.mp4"):
        error = refusal(invoke("run", toy, tmp_path / name, "--json"))
        assert str(tmp_path / name) in error
        assert error.endswith("give a video")


@pytest.mark.parametrize("kind", ["m3u8", "ffconcat"])
def test_a_playlist_leads_to_no_other_file(kind: str, clip: Path, tmp_path: Path) -> None:
    # Without its end a list is live, and FFmpeg waits for more of it.
    form = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{}\n#EXT-X-ENDLIST\n"
    if kind == "ffconcat":
        form = "ffconcat version 1.0\nfile {}\n"
    (tmp_path / "v.mp4").write_bytes(clip.read_bytes())
    for target in ("v.mp4", str(clip)):
        (tmp_path / f"list.{kind}").write_text(form.format(target))
        with pytest.raises(VideoError):
            list(decode.decode(tmp_path / f"list.{kind}"))


def test_the_name_of_a_video_does_not_matter(toy: Path, clip: Path, tmp_path: Path, top: Callable[..., Any]) -> None:
    wanted = top(toy, clip)
    for name in ("v.txt", "v.avi", "v", "ein Vidéo, 1%d #2.mp4"):
        (tmp_path / name).write_bytes(clip.read_bytes())
        assert top(toy, tmp_path / name) == wanted


def test_one_frame_is_a_video(
    toy: Path,
    save: Callable[[Contract], Path],
    tmp_path: Path,
    answers: Callable[..., Any],
    assert_top: Callable[..., Any],
    clip_logits: Callable[..., Any],
    contract: Callable[..., Any],
    decoded: Callable[..., Any],
    logits_of: Callable[..., Any],
    moving: Callable[..., Any],
    top: Callable[..., Any],
    write: Callable[..., Any],
) -> None:
    path = write(tmp_path / "one.mp4", moving(24)[23:])
    (found,) = answers(toy, path)
    assert_top(found["top5"], logits_of(decoded(path))[0])
    assert_top(top(save(contract("offline")), path), clip_logits(decoded(path) * 4))


def test_a_video_that_breaks_off_is_answered_by_what_there_is(
    toy: Path, tmp_path: Path, answers: Callable[..., Any], write: Callable[..., Any]
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 72, 96, 3), dtype="uint8")
    whole = write(tmp_path / "whole.mp4", noise, movflags="faststart")
    content = whole.read_bytes()
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(content[: len(content) // 2])
    assert 0 < len(answers(toy, broken)) < len(answers(toy, whole)) == 20


#: Clockwise turns that a phone asks for, as QuickTime's matrix (a, b, c, d) and as Pillow's name for it.
TURNS = {
    90: ((0, 1, -1, 0), Image.Transpose.ROTATE_270),
    180: ((-1, 0, 0, -1), Image.Transpose.ROTATE_180),
    270: ((0, -1, 1, 0), Image.Transpose.ROTATE_90),
}


@pytest.mark.parametrize("degrees", TURNS)
def test_a_turned_video_is_put_upright(degrees: int, clip: Path, tmp_path: Path, decoded: Callable[..., Any]) -> None:
    (a, b, c, d), turn = TURNS[degrees]
    content = bytearray(clip.read_bytes())
    start = content.index(b"tkhd") + 4 + 40  # past version, times, track, duration, layer, volume
    assert struct.unpack_from(">9i", content, start) == (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    struct.pack_into(">9i", content, start, *(n << 16 for n in (a, b, 0, c, d, 0, 0, 0)), 1 << 30)
    path = tmp_path / "turned.mp4"
    path.write_bytes(content)
    found = [image for _, image in decode.decode(path)]
    wanted = [image.transpose(turn) for image in decoded(clip)]
    assert found[0].size == ((72, 96) if degrees != 180 else (96, 72))
    assert all(np.array_equal(one, other) for one, other in zip(found, wanted, strict=True))


def test_times_are_the_files_own(tmp_path: Path, moving: Callable[..., Any], write: Callable[..., Any]) -> None:
    times = [0, 20, 40, 100, 400, 410, 1000, 1033]
    path = write(tmp_path / "uneven.mkv", moving(8), times=times)
    assert [time for time, _ in decode.decode(path)] == pytest.approx(np.array(times) / 1000, abs=1e-3)


@pytest.mark.parametrize("size", [(97, 33), (33, 97), (16, 16), (1, 1)])
def test_odd_sizes_come_back_to_the_bit(size: tuple[int, int], tmp_path: Path, lossless: Callable[..., Any]) -> None:
    width, height = size
    frames = np.random.default_rng(0).integers(0, 256, (3, height, width, 3), dtype="uint8")
    path = lossless(tmp_path / "odd.mkv", frames)
    assert np.array_equal([np.asarray(image) for _, image in decode.decode(path)], frames)
    assert transforms.prepared(next(decode.decode(path))[1], RESIZE, SIZE).shape == (3, SIZE, SIZE)


#: Size of a video; size after its short side became 256; corner of the crop of 224. Halves go to the even number.
GEOMETRY = [
    ((340, 256), (340, 256), (58, 16)),
    ((320, 240), (341, 256), (58, 16)),
    ((1920, 1080), (455, 256), (116, 16)),
    ((1080, 1920), (256, 455), (16, 116)),
    ((176, 100), (450, 256), (113, 16)),
    ((100, 176), (256, 450), (16, 113)),
    ((97, 33), (752, 256), (264, 16)),
    ((480, 480), (256, 256), (16, 16)),
    ((427, 240), (455, 256), (116, 16)),
    ((257, 256), (257, 256), (16, 16)),
]


@pytest.mark.parametrize(("size", "resized", "corner"), GEOMETRY)
def test_short_side_is_resized_and_the_centre_cropped(
    size: tuple[int, int], resized: tuple[int, int], corner: tuple[int, int]
) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype="uint8")
    image = Image.fromarray(pixels)
    left, top = corner
    small = np.asarray(image.resize(resized, Image.Resampling.BILINEAR))
    found = transforms.prepared(image, 256, 224)
    assert found.dtype == np.uint8
    assert found.shape == (3, 224, 224)
    assert np.array_equal(found, small[top : top + 224, left : left + 224].transpose(2, 0, 1))


def test_colours_are_red_green_blue(tmp_path: Path, lossless: Callable[..., Any]) -> None:
    frame = np.zeros((40, 60, 3), "uint8")
    frame[...] = (200, 100, 50)
    ((_, image),) = decode.decode(lossless(tmp_path / "c.mkv", [frame]))
    assert transforms.prepared(image, RESIZE, SIZE).mean((1, 2)).tolist() == [200, 100, 50]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["demo.mp4", "demo_skeleton.mp4"])
def test_a_video_gets_mits_logits(
    name: str, published: Callable[[str], Path], softmax: Callable[..., Any], top: Callable[..., Any]
) -> None:
    recorded, path = SHARED / "parity" / "pipeline_mit.json", SHARED / "clips" / name
    if not (recorded.is_file() and path.is_file()):
        pytest.skip("the recorded pipeline lies beside the project, not in it")
    case = next(case for case in json.loads(recorded.read_text()) if case["clip"] == name)
    found = top("tsm_r50_sthv2", path, "--weights", published("mit_tsm_r50_sthv2"))
    names = ZOO.label_names(ZOO.find("tsm_r50_sthv2"))
    assert names is not None
    wanted = softmax(np.array(case["logits"][0]))
    order = np.argsort(-wanted)[:5]
    assert [row["label"] for row in found] == [names[index] for index in order]
    # Logits of 25 agree to a thousandth or so.
    assert [row["probability"] for row in found] == pytest.approx(wanted[order].tolist(), rel=5e-3, abs=1e-4)


def test_a_clip_is_sampled_from_the_frames_of_a_file(tmp_path: Path, lossless: Callable[..., Any]) -> None:
    frames = [np.full((16, 16, 3), 10 * index, "uint8") for index in range(17)]
    chosen = seek.pick(lossless(tmp_path / "v.mkv", frames), lambda total: sampling.centres(total, 8))
    assert chosen.total == 17
    for index in (1, 3, 5, 7, 9, 11, 13, 15):
        assert np.asarray(chosen.images[index])[0, 0, 0] == 10 * index
        assert chosen.times[index] == pytest.approx(index / 30, abs=1e-3)
