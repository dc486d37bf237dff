"""Training on videos that cannot all be read: found at once, skipped, counted and named; lost later, replaced."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import yaml
from PIL import Image
from safetensors.torch import load_file

from tsmzoo import registry
from tsmzoo.data import dataset, decode, layouts, orientation
from tsmzoo.registry import recipes
from tsmzoo.training import run, train, unreadable

Record = Callable[[Path, int, int], Path]
BROKEN: dict[str, Callable[[Path], Any]] = {
    "empty": lambda path: path.write_bytes(b""),
    "a page": lambda path: path.write_text("<html>no such video</html>"),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:200]),
    "zeros": lambda path: path.write_bytes(bytes(10_000)),
    "missing": lambda path: path.unlink(),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a dead link": lambda path: (path.unlink(), path.symlink_to("nowhere")),
}


@pytest.fixture(scope="module")
def recorded(record: Record, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded")
    record(folder / "data", 10, 1)
    record(folder / "val", 6, 2)
    return folder


@pytest.fixture(autouse=True)
def _lists(recorded: Path, tmp_path: Path) -> None:
    shutil.copytree(recorded, tmp_path, dirs_exist_ok=True)


def metrics(out: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def same_weights(one: Path, two: Path) -> bool:
    a, b = (load_file(out / "model.safetensors") for out in (one, two))
    return a.keys() == b.keys() and all(a[key].equal(b[key]) for key in a)


def one_line(result: Any, *words: str) -> None:
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1, result.stderr
    for word in words:
        assert word in result.stderr


def test_broken_videos_are_skipped_counted_and_named(train_tiny: Any, tmp_path: Path) -> None:
    broken = {"data": list(range(len(BROKEN))), "val": [2]}
    for number, damage in enumerate(BROKEN.values()):
        damage(tmp_path / "data" / f"{number}.mp4")
    BROKEN["empty"](tmp_path / "val" / "2.mp4")
    result = train_tiny("--json", batch=3)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert [(row["list"], row["video"]) for row in document["skipped_videos"]] == [
        *(("training", f"{number}.mp4") for number in broken["data"]),
        ("validation", "2.mp4"),
    ]
    assert (document["skipped"], document["val_videos"]) == (7, 5)
    assert (document["train_videos"], document["train_listed"], document["val_listed"]) == (3, 10, 6)
    notes = result.stderr.splitlines()
    assert len(notes) == 2
    for note, words in zip(notes, (("7 of 10", "0.mp4"), ("1 of 6", "2.mp4")), strict=True):
        assert all(word in note for word in words)
    # What is left is what a list without them would be: the same network, measured on as many.
    whole = tmp_path / "whole"
    for folder, numbers in broken.items():
        shutil.copytree(tmp_path / folder, whole / folder, symlinks=True)
        kept = whole / folder / dataset.ANNOTATIONS
        gone = tuple(f"{number}.mp4" for number in numbers)
        lines = [line for line in kept.read_text().splitlines(keepends=True) if not line.startswith(gone)]
        kept.write_text("".join(lines))
    options = ("--data", str(whole / "data"), "--val", str(whole / "val"), "-o", str(whole / "out"))
    assert train_tiny(*options, batch=3).exit_code == 0
    assert same_weights(tmp_path / "out", whole / "out")
    assert metrics(tmp_path / "out")[-1] == metrics(whole / "out")[-1] | {"skipped": 7}
    entry = registry.load(tmp_path / "out" / "registry.yaml").find("mine")
    assert [note.split(" could")[0] for note in entry.notes] == [
        "7 of the 10 videos of its training list",
        "1 of the 6 videos of its validation list",
    ]


def test_eval_and_training_skip_the_same(train_tiny: Any, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from tsmzoo.cli import app

    for number, how in enumerate(list(BROKEN)[:4]):
        BROKEN[how](tmp_path / "val" / f"{number}.mp4")
    document = json.loads(train_tiny("--json").stdout)
    options = ["--data", str(tmp_path / "val"), "--registry", str(tmp_path / "out" / "registry.yaml"), "--json"]
    measured = json.loads(CliRunner().invoke(app, ["eval", "mine", *options]).stdout)
    assert (measured["videos"], measured["skipped"]) == (document["val_videos"], len(document["skipped_videos"]))
    assert measured["top1"] == document["val_top1"]


@pytest.mark.parametrize("folder", ["data", pytest.param("val", marks=pytest.mark.slow)])
def test_strict_stops_before_the_first_epoch(train_tiny: Any, tmp_path: Path, folder: str) -> None:
    for number in (4, 5):
        BROKEN["empty"](tmp_path / folder / f"{number}.mp4")
    one_line(train_tiny("--strict"), "--strict", "2 videos", "4.mp4 (is empty; give a video)", "5.mp4 (is empty)")
    assert not (tmp_path / "out" / "metrics.jsonl").exists()
    assert train_tiny().exit_code == 0
    one_line(train_tiny("--strict"), "--strict", "4.mp4")


def test_more_than_a_few_are_counted(train_tiny: Any, tmp_path: Path) -> None:
    for number in range(5):
        BROKEN["empty"](tmp_path / "data" / f"{number}.mp4")
    result = train_tiny()
    assert result.exit_code == 0
    assert "5 of 10" in result.stderr
    assert "2.mp4 (is empty) and 2 more" in result.stderr


@pytest.mark.parametrize(
    ("folder", "numbers", "words"),
    [
        ("data", range(10), ("none of the 10 videos of the training list", "0.mp4")),
        ("val", range(6), ("none of the 6 videos of the validation list", "0.mp4")),
        ("data", (1, 3, 5, 7, 9), ("none of the 5 videos of class 'blue'", "1.mp4")),
        ("data", (0, 1, 2, 3, 4, 5, 6), ("3 videos make no batch of 4", "7 more", "0.mp4")),
    ],
    ids=["all", "all to validate on", "a class", "a batch"],
)
def test_too_few_are_one_line(
    train_tiny: Any, tmp_path: Path, folder: str, numbers: Any, words: tuple[str, ...]
) -> None:
    for number in numbers:
        BROKEN["a page"](tmp_path / folder / f"{number}.mp4")
    one_line(train_tiny(), *words)
    assert not (tmp_path / "out" / "metrics.jsonl").exists()


def folder_of_images(path: Path, count: int, broken: tuple[int, ...] = ()) -> None:
    path.unlink()
    path.mkdir()
    for number in range(count):
        image = path / f"img_{number:05d}.jpg"
        Image.fromarray(np.full((40, 48, 3), 20 * number % 255, np.uint8)).save(image)
        if number in broken:
            image.write_bytes(b"")


@pytest.mark.parametrize("broken", [pytest.param((5,), marks=pytest.mark.slow), (2,)], ids=["last", "another"])
def test_folders_of_images_are_looked_into_at_both_ends(
    train_tiny: Any, tmp_path: Path, broken: tuple[int, ...]
) -> None:
    folder_of_images(tmp_path / "data" / "2.mp4", 6)
    folder_of_images(tmp_path / "data" / "3.mp4", 6, broken)
    result = train_tiny("--json", frames=6, epochs=2, batch=5)  # all images, for certain
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert [row["video"] for row in document["skipped_videos"]] == ["3.mp4"]
    assert f"img_0000{broken[0]}.jpg" in document["skipped_videos"][0]["why"]
    assert ("of 10 videos" in result.stderr) is (broken != (2,)), "found before, or while it was trained"


# --- lost while it is trained ----------------------------------------------------------------------------------------


def fit(
    folder: Path, zoo: Path, out: Path, at: int | None = None, act: Any = None, **changes: Any
) -> train.TrainingResult:
    """Train, and `act` as step `at` begins."""
    plain: dict[str, Any] = {"name": "mine", "model": "tiny", "weights": "random", "epochs": 2, "batch": 4, "lr": 0.05}
    plain |= {"schedule": "cosine", "dropout": 0.5, "scales": (1.0,), "hflip": True, "frames": 2}
    how = recipes.Training(**plain | {key: value for key, value in changes.items() if key != "strict"})

    def progress(text: str, done: int, _: int) -> None:
        if text.startswith("epoch") and done == at:
            act()

    read = layouts.read(folder / "data"), layouts.read(folder / "val")
    strict = changes.get("strict", False)
    loaded = registry.load(zoo)
    return train.train(loaded, how, *read, out, progress=progress, notify=print, strict=strict)


def interrupt() -> None:
    raise KeyboardInterrupt


def test_a_video_lost_in_training_is_replaced_and_named(
    tiny_zoo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = fit(tmp_path, tiny_zoo, tmp_path / "out", 2, (tmp_path / "data" / "0.mp4").unlink)
    assert last.skipped_videos == (train.UnreadableVideo("training", "0.mp4", "is missing"),)
    assert (last.epoch, last.skipped, last.val_videos) == (2, 1, 6)
    assert "0.mp4 (is missing); others took their place" in capsys.readouterr().out
    assert all("0.mp4" not in line for line in (tmp_path / "out" / "registry.yaml").read_text().splitlines())


@pytest.mark.slow
def test_a_run_that_lost_a_video_ends_as_one_that_was_interrupted_too(tiny_zoo: Path, tmp_path: Path) -> None:
    for name, stop in (("one", None), ("two", 3)):
        gone = tmp_path / "data" / "0.mp4"
        content = gone.read_bytes()
        gone.unlink()
        BROKEN["empty"](tmp_path / "data" / "5.mp4")
        gone.write_bytes(content)
        out = tmp_path / name
        if stop:  # interrupted in the second epoch, for which the video is gone
            with pytest.raises(KeyboardInterrupt):
                fit(tmp_path, tiny_zoo, out, stop, interrupt)
            gone.unlink()
            last = fit(tmp_path, tiny_zoo, out)
        else:
            last = fit(tmp_path, tiny_zoo, out, 1, gone.unlink)
        gone.write_bytes(content)
        assert [row.video for row in last.skipped_videos] == ["5.mp4", "0.mp4"]
    assert same_weights(tmp_path / "one", tmp_path / "two")
    assert metrics(tmp_path / "one")[-1] == metrics(tmp_path / "two")[-1]


@pytest.mark.slow
def test_a_video_that_was_mended_is_left_out_of_a_run_that_began_without_it(tiny_zoo: Path, tmp_path: Path) -> None:
    video = tmp_path / "data" / "5.mp4"
    content = video.read_bytes()
    BROKEN["a page"](video)
    fit(tmp_path, tiny_zoo, tmp_path / "one")
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, tiny_zoo, tmp_path / "two", 3, interrupt)
    video.write_bytes(content)
    last = fit(tmp_path, tiny_zoo, tmp_path / "two")
    assert [row.video for row in last.skipped_videos] == ["5.mp4"]
    assert same_weights(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_validation_counts_what_it_measured(tiny_zoo: Path, tmp_path: Path) -> None:
    last = fit(tmp_path, tiny_zoo, tmp_path / "out", 1, (tmp_path / "val" / "4.mp4").unlink)
    assert (last.val_videos, last.skipped) == (5, 0)
    assert last.val_top1 in {round(100 * right / 5, 2) for right in range(6)}
    assert [(row.list, row.video) for row in last.skipped_videos] == [("validation", "4.mp4")]


@pytest.mark.slow
def test_a_disk_that_goes_away_is_one_line_and_the_run_goes_on_later(tiny_zoo: Path, tmp_path: Path) -> None:
    away = tmp_path / "away"
    with pytest.raises(train.TrainingError, match="none of the 10 videos can be read any more") as raised:
        fit(tmp_path, tiny_zoo, tmp_path / "out", 3, lambda: (tmp_path / "data").rename(away))
    assert "\n" not in str(raised.value)
    away.rename(tmp_path / "data")
    fit(tmp_path, tiny_zoo, tmp_path / "out")
    fit(tmp_path, tiny_zoo, tmp_path / "whole")
    assert same_weights(tmp_path / "out", tmp_path / "whole")


def test_strict_stops_where_a_video_is_lost(tiny_zoo: Path, tmp_path: Path) -> None:
    with pytest.raises(train.TrainingError, match=r"--strict: .*0\.mp4: is missing"):
        fit(tmp_path, tiny_zoo, tmp_path / "out", 1, (tmp_path / "data" / "0.mp4").unlink, strict=True)


@pytest.mark.slow
def test_workers_and_memory_lose_the_same(tiny_zoo: Path, tmp_path: Path) -> None:
    folder_of_images(tmp_path / "data" / "2.mp4", 6, (2,))
    folder_of_images(tmp_path / "val" / "2.mp4", 5, (1,))
    lasts = [
        fit(tmp_path, tiny_zoo, tmp_path / name, frames=6, **changes)
        for name, changes in (("plain", {}), ("workers", {"workers": 2}))
    ]
    assert [(row.list, row.video) for row in lasts[0].skipped_videos] == [
        ("training", "2.mp4"),
        ("validation", "2.mp4"),
    ]
    assert lasts[0].skipped_videos == lasts[1].skipped_videos
    assert same_weights(tmp_path / "plain", tmp_path / "workers")
    held = fit(tmp_path, tiny_zoo, tmp_path / "memory", frames=6, in_memory=True)
    assert held.skipped_videos == lasts[0].skipped_videos


@pytest.mark.slow
def test_a_state_of_the_version_before_is_resumed(tiny_zoo: Path, tmp_path: Path) -> None:
    import torch

    fit(tmp_path, tiny_zoo, tmp_path / "one")
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, tiny_zoo, tmp_path / "two", 3, interrupt)
    kept = torch.load(tmp_path / "two" / run.RESUME, weights_only=True)
    assert kept.pop("skipped") == kept.pop("lost") == {"training": {}, "validation": {}}
    torch.save(kept, tmp_path / "two" / run.RESUME)  # to a path, as it did
    lines = metrics(tmp_path / "two")
    for line in lines:
        for key in ("val_videos", "skipped"):
            line.pop(key, None)
    text = "".join(json.dumps(line | {"seconds": 0.5}) + "\n" for line in lines)
    (tmp_path / "two" / "metrics.jsonl").write_text(text)
    fit(tmp_path, tiny_zoo, tmp_path / "two")
    assert same_weights(tmp_path / "one", tmp_path / "two")


def test_the_probe_reads_no_more_than_it_must(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One frame of each video becomes an image, of whatever length it is."""
    made = []
    plain = orientation.as_image
    monkeypatch.setattr(orientation, "as_image", lambda frame: made.append(1) or plain(frame))
    listed = layouts.read(tmp_path / "data").videos
    counted: list[int] = []
    assert unreadable.probe(listed, counted.append) == {}
    assert (len(made), counted) == (10, [10])


@pytest.mark.parametrize("weights", ["x.pth", "publshed", "folder", "text.pth"])
def test_a_start_that_is_none_names_the_recipes_key(train_tiny: Any, tmp_path: Path, weights: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.pth").write_text("none")
    path = weights if weights == "publshed" else str(tmp_path / weights)
    result = train_tiny(weights=path)
    one_line(result, "`weights`", path)
    assert "--weights" not in result.stderr
    assert yaml.safe_load((tmp_path / "mine.yaml").read_text())["weights"] == path


@pytest.mark.slow
def test_a_run_does_not_go_on_with_images_of_another_name(train_tiny: Any, tmp_path: Path) -> None:
    assert train_tiny().exit_code == 0
    one_line(train_tiny("--images", "img_{:05d}.jpg"), str(tmp_path / "out"), "another recipe, list")
    assert train_tiny().exit_code == 0


def test_the_first_reason_says_what_to_do(train_tiny: Any, tmp_path: Path) -> None:
    for number in (1, 3):
        (tmp_path / "data" / f"{number}.mp4").write_bytes(b"")
    result = train_tiny("--strict")
    one_line(result, "1.mp4 (is empty; give a video), 3.mp4 (is empty);")


def test_the_probe_decodes_one_frame_in_one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    decoded = decode._decoded

    def counted(path: Any, container: Any, stream: Any) -> Any:
        for frame in decoded(path, container, stream):
            seen.append(stream.codec_context.thread_count)
            yield frame

    monkeypatch.setattr(decode, "_decoded", counted)
    assert unreadable.probe(layouts.read(tmp_path / "data").videos, lambda _: None) == {}
    assert seen == [1] * 10


@pytest.mark.parametrize(
    ("number", "broken"), [(errno.EAGAIN, 0), (errno.EMFILE, 0), (errno.ENOMEM, 0), (errno.EACCES, 10)]
)
def test_a_lack_of_the_machine_is_no_fault_of_a_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, broken: int
) -> None:
    def lacking(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    listed = layouts.read(tmp_path / "data").videos
    monkeypatch.setattr(Path, "open", lacking)
    assert len(unreadable.probe(listed, lambda _: None)) == broken
    monkeypatch.undo()
    monkeypatch.setattr(decode, "_container", lacking)
    assert len(unreadable.probe(listed, lambda _: None)) == broken


@pytest.mark.slow
def test_a_video_whose_pictures_change_their_size_is_replaced_and_named(train_tiny: Any, tmp_path: Path) -> None:
    half = tmp_path / "half.ts"
    with av.open(str(half), "w") as container, av.open(str(tmp_path / "data" / "3.ts"), "w") as turned:
        for size, target in (((48, 40), container), ((40, 48), turned)):
            stream = target.add_stream("mpeg2video", rate=25)
            stream.width, stream.height = size
            for _ in range(6):
                target.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((size[1], size[0], 3), np.uint8))))
            target.mux(stream.encode())
    joined = half.read_bytes() + (tmp_path / "data" / "3.ts").read_bytes()
    (tmp_path / "data" / "3.ts").unlink()
    (tmp_path / "data" / "3.mp4").write_bytes(joined)
    result = train_tiny("--json", frames=8)
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)["skipped_videos"]
    assert row["video"] == "3.mp4"
    assert "its pictures are" in row["why"]
