"""Videos that are broken, odd or must not be read."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from tsmzoo.data import motion
from tsmzoo.models.wrappers import ClipModel
from tsmzoo.typing import Array

#: The smallest networks of the zoo.
TSN, TSM, ONLINE = "tsn_mbv2_motion", "tsm_mbv2_motion", "tsm_mbv2_motion_online"


@pytest.mark.slow
@torch.no_grad()
def test_whole_videos_are_of_any_length(
    tmp_path: Path,
    answer: Callable[..., Any],
    close: Callable[..., Any],
    cut: Callable[..., Any],
    lines: Callable[..., Any],
    listed: Callable[..., Any],
    network: Callable[..., Any],
) -> None:
    """Two of a length and others between them, each answered as if alone; one too long, from its middle."""
    lengths = {"a.mov": 9, "b.mov": 3, "c.mov": 9, "d.mov": 1, "e.mov": 302}
    for name, frames in lengths.items():
        encode(tmp_path / name, noise(frames))
    listed(tmp_path, [(name, 0) for name in lengths])
    options = ("--protocol", "deepmind_test", "--weights", "random", "--seed", "3", "--observe", "50")
    document = answer(TSM, "--data", tmp_path, "--predictions", tmp_path / "p.jsonl", *options)
    assert (document["protocol"], document["plan"]["sampling"]) == ("deepmind_test", "whole")
    assert (document["plan"]["frames"], document["plan"]["stride"]) == (300, 1)

    def wanted(pictures: Array) -> torch.Tensor:
        resized = (cv2.resize(picture, (73, 73), interpolation=cv2.INTER_LINEAR) for picture in pictures)
        return ClipModel(network(TSM).backbone, len(pictures))(torch.stack([cut(each, 4, 4) for each in resized])[None])

    for row in lines(tmp_path / "p.jsonl"):
        pictures = noise(lengths[row["video"]])
        assert close(row["logits"], wanted(pictures[1:301] if len(pictures) > 300 else pictures)), row["video"]
        assert close(row["observed"]["50"], wanted(pictures[: (len(pictures) + 1) // 2])), row["video"]


def encode(path: Path, frames: Array, codec: str = "png", times: Sequence[int] | None = None) -> None:
    """Write frames, T, H, W, 3, without loss, at `times` in hundredths of a second."""
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=100)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "rgb24" if codec == "png" else "bgr0"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 100)
        for index, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            picture.pts, picture.time_base = times[index] if times else 10 * index, Fraction(1, 100)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def audio(path: Path) -> None:
    with av.open(path, "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), "fltp", "mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())


def turned(path: Path, frames: Array) -> None:
    """Write frames lying on their side, and beside them that a player is to turn them by a quarter clockwise."""
    encode(path, np.rot90(frames, axes=(1, 2)))
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 40  # of a header of version 0
    content[matrix : matrix + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    path.write_bytes(content)


def noise(frames: int, height: int = 96, width: int = 96) -> Array:
    """Return pictures unlike each other, the same ones for the same shape."""
    coarse = np.random.default_rng(frames).integers(0, 256, (frames, 6, 6, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(each).resize((width, height))) for each in coarse])


#: Name, and how it comes about; then why it is skipped, or None where it is scored.
FAULTS: dict[str, tuple[Callable[[Path], object], str | None]] = {
    "empty.mp4": (lambda path: path.write_bytes(b""), "is empty"),
    "truncated.mp4": (lambda path: halved(path), "cannot be decoded"),
    "truncated.mkv": (lambda path: halved(path, "ffv1"), None),
    "audio.mp4": (audio, "has no video stream"),
    "text.mp4": (lambda path: path.write_text("no video\n" * 99), "cannot be decoded"),
    "playlist.mp4": (lambda path: path.write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1/\n"), "cannot be decoded"),
    "one frame.mov": (lambda path: encode(path, noise(1)), None),
    "three frames.mov": (lambda path: encode(path, noise(3)), None),
    "odd.mov": (lambda path: encode(path, noise(9, 97, 131)), None),
    "tall.mov": (lambda path: encode(path, noise(9, 131, 97)), None),
    "tiny.mov": (lambda path: encode(path, noise(9, 3, 5)), None),
    "turned.mov": (lambda path: turned(path, noise(17, 96, 130)), None),
    "upright.mov": (lambda path: encode(path, noise(17, 96, 130)), None),
    "steady.mkv": (lambda path: encode(path, noise(16), "ffv1"), None),
    "unsteady.mkv": (lambda path: encode(path, noise(16), "ffv1", [n * n for n in range(16)]), None),
    "missing.mp4": (lambda _: None, "is missing"),
    "no images": (lambda path: path.mkdir(), "holds no images"),
    "one image": (lambda path: (path.mkdir(), Image.new("RGB", (99, 80)).save(path / "1.png")), None),
    "torn image": (lambda path: (path.mkdir(), (path / "1.png").write_bytes(b"\x89PNG")), "cannot be decoded"),
}


def halved(path: Path, codec: str = "png") -> None:
    encode(path, noise(17), codec)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory, clips: Path, listed: Callable[..., Any]) -> Path:
    """Give a dataset of all of FAULTS, and sound clips between them."""
    folder = tmp_path_factory.mktemp("broken") / "data"
    folder.mkdir()
    items = []
    for number, (name, (write, _)) in enumerate(FAULTS.items()):
        write(folder / name)
        sound = f"sound {number}.mp4"
        os.link(clips / "videos" / f"{number:06d}.mp4", folder / sound)
        items += [(name, number % 14), (sound, 3)]
    return listed(folder, items)


@pytest.fixture(scope="module")
def survived(
    broken: Path, answer: Callable[..., Any], lines: Callable[..., Any]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Give the document of its evaluation, and the predictions by name."""
    path = broken.parent / "p.jsonl"
    document = answer(TSM, "--data", broken, "--weights", "random", "--seed", "3", "--predictions", path)
    return document, {row["video"]: row for row in lines(path)}


@pytest.mark.parametrize("name", FAULTS)
def test_a_broken_video_is_scored_or_skipped(name: str, survived: Any) -> None:
    document, rows = survived
    why = FAULTS[name][1]
    told = [row["why"] for row in document["skipped_videos"] if row["video"] == name]
    if why is None:
        assert told == []
        assert np.shape(rows[name]["logits"]) == (1, 14)
        assert "skipped" not in rows[name]
    else:
        assert rows[name]["logits"] == []
        assert told == [rows[name]["skipped"]]
        assert why in told[0]
        assert "\n" not in told[0]


def test_what_is_skipped_is_counted_and_the_rest_keeps_its_answers(
    survived: Any, saved: Callable[..., Path], close: Callable[..., Any], lines: Callable[..., Any]
) -> None:
    document, rows = survived
    skipped = [name for name, (_, why) in FAULTS.items() if why is not None]
    assert [row["video"] for row in document["skipped_videos"]] == skipped
    assert (document["videos"], document["skipped"]) == (2 * len(FAULTS) - len(skipped), len(skipped))
    assert f"{len(skipped)} of {2 * len(FAULTS)} listed videos were skipped" in document["differences"]
    alone = {row["video"]: row["logits"] for row in lines(saved(TSM, "--weights", "random", "--seed", "3"))}
    for number in range(len(FAULTS)):
        assert close(rows[f"sound {number}.mp4"]["logits"], torch.tensor(alone[f"videos/{number:06d}.mp4"]))


@torch.no_grad()
def test_odd_videos_are_seen_as_they_are_shown(
    survived: Any,
    close: Callable[..., Any],
    cut: Callable[..., Any],
    network: Callable[..., Any],
    resized: Callable[..., Any],
) -> None:
    rows = survived[1]
    for name, frames in (("one frame.mov", [0] * 8), ("three frames.mov", [0, 0, 0, 1, 1, 2, 2, 2])):
        images = [Image.fromarray(picture) for picture in noise(max(frames) + 1)]
        views = torch.stack([cut(resized(images[index]), 4, 4) for index in frames])
        assert close(rows[name]["logits"], ClipModel(network(TSM).backbone, 8)(views[None])), name
    assert rows["turned.mov"]["logits"] == rows["upright.mov"]["logits"]
    assert rows["unsteady.mkv"]["logits"] == rows["steady.mkv"]["logits"], "frames count, not their times"


def test_text_names_the_first_of_the_skipped(broken: Path, survived: Any, invoke: Callable[..., Any]) -> None:
    assert survived
    text = invoke("eval", broken.parent / "p.jsonl").stdout
    assert "8 skipped" in text
    assert text.count("  skipped ") == 5
    assert "… and 3 more; --json names all" in text


@pytest.mark.parametrize("name", [name for name, (_, why) in FAULTS.items() if why is not None])
def test_strict_stops_with_one_line(name: str, broken: Path, tmp_path: Path, refusal: Callable[..., Any]) -> None:
    few = tmp_path / "few.txt"
    few.write_text(f"sound 1.mp4 3\n{name} 0\nsound 2.mp4 3\n")
    error = refusal(TSM, "--data", broken, "--list", few, "--weights", "random", "--strict")
    assert str(FAULTS[name][1]) in error
    assert name in error


def test_nothing_that_can_be_decoded_is_one_line(broken: Path, tmp_path: Path, refusal: Callable[..., Any]) -> None:
    few = tmp_path / "few.txt"
    few.write_text("empty.mp4 0\naudio.mp4 1\nmissing.mp4 2\n")
    error = refusal(TSM, "--data", broken, "--list", few, "--weights", "random")
    assert "none of the 3 videos could be scored; empty.mp4: is empty" in error


def test_a_video_that_must_not_be_read_is_skipped(
    clips: Path, few: Path, monkeypatch: pytest.MonkeyPatch, answer: Callable[..., Any]
) -> None:
    first, opened = clips / few.read_text().split()[0], Path.open

    def locked(self: Path, *arguments: Any, **options: Any) -> Any:
        if self == first:
            raise PermissionError(13, "Permission denied", str(self))
        return opened(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", locked)
    document = answer(TSM, "--data", clips, "--list", few, "--weights", "random")
    assert (document["videos"], document["skipped"]) == (2, 1)
    assert "Permission denied" in document["skipped_videos"][0]["why"]


def test_the_page_escapes_what_it_is_given(
    broken: Path, tmp_path: Path, own_registry: Callable[..., Any], page: Callable[..., Any]
) -> None:
    bad = ["<script>alert(1)</script>", "a & b", *motion.CLASSES[2:]]
    own = own_registry(tmp_path / "own.yaml", bad)
    listing = tmp_path / "lists" / "few.txt"
    listing.parent.mkdir()
    (broken / "<i>.mp4").touch()
    listing.write_text("sound 0.mp4 0\nsound 1.mp4 1\n<i>.mp4 1\n")
    listing.with_name("labels.txt").write_text("".join(f"{name}\n" for name in bad))
    text = page(
        *("mine", "--registry", own, "--data", broken, "--list", listing, "--weights", "random"),
        at=tmp_path / "page.html",
    )
    assert "<script>" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "a &amp; b" in text
    assert "<i>" not in text
    assert "&lt;i&gt;.mp4" in text
