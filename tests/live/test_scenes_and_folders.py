"""Cuts between scenes, and folders of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tsmzoo.artifact.contract import Contract


def scenes(count: int, *seeds: int) -> list[np.ndarray]:
    """Return scenes of `count` frames each: noise in blocks, light or dark, that shimmers."""
    frames = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        blocks = rng.integers(0, 120, (9, 12, 3)) + 130 * (seed % 2)
        still = np.kron(blocks, np.ones((8, 8, 1)))
        frames += [(still + rng.integers(0, 6, still.shape)).astype("uint8") for _ in range(count)]
    return frames


def test_a_cut_makes_the_model_forget(
    save: Callable[[Contract], Path],
    tmp_path: Path,
    answers: Callable[..., Any],
    assert_top: Callable[..., Any],
    by_scene: Callable[..., Any],
    contract: Callable[..., Any],
    decoded: Callable[..., Any],
    invoke: Callable[..., Any],
    logits_of: Callable[..., Any],
    lossless: Callable[..., Any],
) -> None:
    toy = save(contract("online", target_fps=None))
    path = lossless(tmp_path / "cut.mkv", scenes(6, 1, 2))
    first, second = by_scene(path, 6, 6)
    found = answers(toy, path, "--threshold", "0")
    assert [one["reset"] for one in found] == [False] * 6 + [True] + [False] * 5
    assert_top(found[5]["top5"], first.mean(0))
    assert_top(found[6]["top5"], second[0])
    assert_top(found[-1]["top5"], second.mean(0))
    assert [one["index"] is None for one in found[6:8]] == [True, False]  # what was shown was of another scene
    assert "12 frames, 1 reset," in invoke("run", toy, path).stdout
    never = answers(toy, path, "--cut", "0", "--window", "100")
    assert not any(one["reset"] for one in never)
    assert_top(never[-1]["top5"], logits_of(decoded(path)).mean(0))


def test_a_model_begins_anew_every_so_often_where_asked(
    toy: Path,
    tmp_path: Path,
    answers: Callable[..., Any],
    assert_top: Callable[..., Any],
    decoded: Callable[..., Any],
    logits_of: Callable[..., Any],
    lossless: Callable[..., Any],
) -> None:
    path = lossless(tmp_path / "v.mkv", scenes(60, 1))
    found = answers(toy, path, "--reset-every", "0.8")
    assert [number for number, one in enumerate(found) if one["reset"]] == [12, 24]
    images = decoded(path)[::2]
    assert_top(found[23]["top5"], logits_of(images[12:24]).mean(0))


def test_a_slow_clip_is_not_held_to_be_cut(
    save: Callable[[Contract], Path],
    tmp_path: Path,
    answers: Callable[..., Any],
    contract: Callable[..., Any],
    lossless: Callable[..., Any],
) -> None:
    path = lossless(tmp_path / "cut.mkv", scenes(60, 1, 2))
    toy = save(contract("offline"))
    assert not any(one["reset"] for one in answers(toy, path, "--every", "1", "--span", "2"))
    assert any(one["reset"] for one in answers(toy, path, "--every", "1", "--span", "0.4"))


def folder_of(path: Path, images: Sequence[np.ndarray], name: str = "{}.png") -> Path:
    path.mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(path / name.format(number + 1))
    return path


def test_a_folder_of_images_is_a_video(
    toy: Path,
    save: Callable[[Contract], Path],
    tmp_path: Path,
    answers: Callable[..., Any],
    assert_top: Callable[..., Any],
    clip_logits: Callable[..., Any],
    contract: Callable[..., Any],
    logits_of: Callable[..., Any],
    moving: Callable[..., Any],
    top: Callable[..., Any],
) -> None:
    frames = moving(12)
    folder = folder_of(tmp_path / "images", frames)
    (folder / "notes.txt").write_text("no image")
    logits = logits_of([Image.fromarray(frame) for frame in frames])
    found = answers(toy, folder)  # 1, 2 … 10: as numbers, not as text
    assert [one["time"] for one in found] == pytest.approx((np.arange(12) / 15).tolist(), abs=1e-3)
    assert_top(found[-1]["top5"], logits.mean(0))
    assert_top(found[0]["top5"], logits[0])
    # Of 45 a second, a model that takes 15 sees every third.
    found = answers(toy, folder, "--fps", "45", "--cut", "0")
    assert len(found) == 4
    assert_top(found[-1]["top5"], logits_of([Image.fromarray(frame) for frame in frames[::3]]).mean(0))
    images = [Image.fromarray(frames[index]) for index in (1, 4, 7, 10)]
    offline = save(contract("offline"))
    assert_top(top(offline, folder), clip_logits(images))


def test_images_of_several_sizes_and_turned_ones_are_answered(
    toy: Path,
    tmp_path: Path,
    answers: Callable[..., Any],
    assert_top: Callable[..., Any],
    decoded: Callable[..., Any],
    logits_of: Callable[..., Any],
    moving: Callable[..., Any],
) -> None:
    frames = moving(3)
    folder = folder_of(tmp_path / "images", frames, "photo {}.png")
    Image.fromarray(frames[1]).resize((48, 90)).save(folder / "photo 2.png")
    Image.fromarray(np.full((200, 31, 3), 90, "uint8")).convert("L").save(folder / "photo 4.png")
    # A phone's picture: the pixels lie on their side, and a tag says so.
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(frames[0])).save(folder / "photo 1.png", exif=exif)
    found = answers(toy, folder, "--cut", "0", "--save", tmp_path / "saved.mp4")
    assert len(found) == 4
    assert_top(found[0]["top5"], logits_of([Image.fromarray(frames[0])])[0])
    assert [image.size for image in decoded(tmp_path / "saved.mp4")] == [(96, 72)] * 4


def test_a_folder_that_gives_nothing_is_told_in_one_line(
    toy: Path,
    clip: Path,
    tmp_path: Path,
    invoke: Callable[..., Any],
    moving: Callable[..., Any],
    refusal: Callable[..., Any],
) -> None:
    (tmp_path / "none").mkdir()
    assert "holds no images" in refusal(invoke("run", toy, tmp_path / "none"))
    folder = folder_of(tmp_path / "images", moving(1))
    (folder / "1.png").write_bytes(b"this is no image")
    assert "1.png: cannot be decoded" in refusal(invoke("run", toy, folder))
    assert "leave out --fps" in refusal(invoke("run", toy, clip, "--fps", "10"))
