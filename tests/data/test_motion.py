"""The motion task: what a model that ignores the order of frames can know of it, and what it cannot."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from tsmzoo.cli import app
from tsmzoo.data import decode, layouts, motion, sampling

VIDEOS, SEED = 56, 11


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("motion") / "clips"
    result = CliRunner().invoke(app, ["data", "motion", str(path), "--videos", str(VIDEOS), "--seed", str(SEED)])
    assert result.exit_code == 0, result.output
    assert str(VIDEOS) in result.output
    return path


@pytest.fixture(scope="module")
def frames(folder: Path) -> list[np.ndarray]:
    return [np.stack([np.asarray(i) for _, i in decode.decode(listed.path)]) for listed in layouts.read(folder).videos]


def labels(folder: Path) -> list[int]:
    return [listed.label for listed in layouts.read(folder).videos]


def bag(clip: np.ndarray) -> str:
    """Return all that a model without a sense of order can know: the frames, in no order."""
    return hashlib.sha256(b"".join(sorted(frame.tobytes() for frame in clip))).hexdigest()


@pytest.mark.slow
def test_a_list_of_every_class_and_videos_of_one_shape(folder: Path, frames: list[np.ndarray]) -> None:
    listed = layouts.read(folder)
    assert listed.classes == motion.CLASSES
    assert Counter(labels(folder)) == {label: VIDEOS // 14 for label in range(14)}
    assert {clip.shape for clip in frames} == {(motion.FRAMES, motion.SIDE, motion.SIDE, 3)}
    assert sorted(path.name for path in (folder / "videos").iterdir()) == [video.path.name for video in listed.videos]


def test_no_oracle_over_the_bag_of_frames_passes_one_half(folder: Path, frames: list[np.ndarray]) -> None:
    answers = defaultdict(list)
    for clip, label in zip(frames, labels(folder), strict=True):
        answers[bag(clip)].append(label)
    # The oracle knows the right answer to every bag; each bag has two, and it must give one.
    right = sum(max(Counter(of_bag).values()) for of_bag in answers.values())
    assert right / VIDEOS == 0.5
    assert all(sorted(of_bag) == [even := min(of_bag), even + 1] and even % 2 == 0 for of_bag in answers.values())


def test_the_sampled_frames_are_the_same_bag_backwards() -> None:
    ahead = sampling.centres(motion.FRAMES, 8)
    assert [motion.FRAMES - 1 - index for index in reversed(ahead)] == ahead


def test_each_clip_is_another_one_backwards(frames: list[np.ndarray]) -> None:
    forwards = {clip.tobytes() for clip in frames}
    assert len(forwards) == VIDEOS
    assert {clip[::-1].tobytes() for clip in frames} == forwards


def test_file_sizes_do_not_tell_twins_apart(folder: Path, frames: list[np.ndarray]) -> None:
    sizes = defaultdict(set)
    for clip, listed in zip(frames, layouts.read(folder).videos, strict=True):
        sizes[bag(clip)].add(listed.path.stat().st_size)
    assert len(sizes) == VIDEOS // 2
    assert all(len(of_twins) == 1 for of_twins in sizes.values())


def test_names_do_not_tell_of_labels(folder: Path) -> None:
    found = np.array(labels(folder))
    assert abs(np.corrcoef(found % 2, np.arange(VIDEOS) % 2)[0, 1]) < 0.5
    assert (np.diff(found // 2) != 0).mean() > 0.5  # twins do not stand side by side


def test_the_same_seed_gives_the_same_files_and_another_seed_others(folder: Path, tmp_path: Path) -> None:
    motion.write(tmp_path / "again", VIDEOS, SEED)
    motion.write(tmp_path / "other", 4, SEED + 1)
    digests = [
        {path.relative_to(root): hashlib.sha256(path.read_bytes()).hexdigest() for path in root.rglob("*.*")}
        for root in (folder, tmp_path / "again", tmp_path / "other")
    ]
    assert digests[0] == digests[1]
    videos = [{digest for name, digest in found.items() if name.suffix == ".mp4"} for found in digests]
    assert [len(found) for found in videos] == [VIDEOS, VIDEOS, 4]
    assert videos[0].isdisjoint(videos[2])


def test_a_wrong_number_or_a_used_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    for videos, where, words in ((7, tmp_path / "new", "even number"), (8, folder, "not empty")):
        result = CliRunner().invoke(app, ["data", "motion", str(where), "--videos", str(videos)])
        assert result.exit_code == 1
        assert words in result.stderr
        assert result.stderr.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_an_interrupted_run_leaves_nothing(tmp_path: Path) -> None:
    def stop(*_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        motion.write(tmp_path / "clips", 14, 0, stop)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("index", range(7))
def test_scenes_move(index: int) -> None:
    frames, label = motion.scene(index, SEED)
    assert label == 2 * index
    steps = np.abs(np.diff(frames.astype(float), axis=0)).mean((1, 2, 3))
    assert (steps > 1).all()


@pytest.mark.slow
def test_a_frame_alone_does_not_tell_the_direction() -> None:
    """A linear reader of the first frame, told the pair, is right in half the cases."""
    scenes, pairs = 60, len(motion.PAIRS)
    right = total = 0
    for pair in range(pairs):
        clips = [motion.scene(pair + pairs * number, SEED)[0] for number in range(scenes)]
        # Forwards the clip begins with its first frame, backwards with its last: 12 x 12 means of each.
        small = [[c[0], c[-1]] for c in clips]
        first = np.array(small).reshape(scenes, 2, 12, 8, 12, 8, 3).mean((3, 5)).reshape(scenes, 2, -1) / 255
        half = scenes // 2
        x, y = first[:half].reshape(2 * half, -1), np.tile([1.0, -1.0], half)
        mean = x.mean(0)
        kernel = (x - mean) @ (x - mean).T
        weights = (x - mean).T @ np.linalg.solve(kernel + 10 * np.eye(len(x)), y)
        guess = np.sign((first[half:].reshape(-1, x.shape[1]) - mean) @ weights)
        right += int((guess == np.tile([1.0, -1.0], scenes - half)).sum())
        total += len(guess)
    # Three standard deviations around one half.
    assert abs(right / total - 0.5) < 3 * 0.5 / np.sqrt(total)
