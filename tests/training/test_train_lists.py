"""What two lists must be to train on one and to measure on the other, and what `train` says of them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import yaml
from typer.testing import CliRunner, Result

from tsmzoo import registry
from tsmzoo.cli import app
from tsmzoo.data import layouts, motion
from tsmzoo.data.dataset import Dataset, Video
from tsmzoo.errors import TrainingError
from tsmzoo.registry import recipes
from tsmzoo.training import held_out as training_held_out

ZOO = registry.load()
MODEL = "tsm_mbv2_motion_online"
RECIPE = {
    **{"name": "mine", "model": MODEL, "weights": "published", "frames": 2, "epochs": 1, "batch": 4},
    **{"lr": 0.001, "schedule": "cosine", "partial_bn": True, "scales": [1], "hflip": False},
}
KINETICS = "label,youtube_id,time_start,time_end,split"


def listed(
    folder: Path, labels: dict[str, int], classes: tuple[str, ...] | None = ("a", "b"), **more: object
) -> Dataset:
    """Return a list of files, each of which holds its own name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in labels:
        if not (folder / name).exists():
            (folder / name).write_text(name, encoding="utf-8")
    videos = tuple(Video(name, folder / name, label) for name, label in labels.items())
    return Dataset(videos, classes, "0" * 64, list_path=folder / "annotations.txt", **more)


def check(videos: Dataset, held_out: Dataset, model: str = MODEL) -> list[str]:
    how = msgspec.convert(RECIPE, recipes.Training)
    return training_held_out.check(ZOO.find(model), how, videos, held_out)


def refusal(videos: Dataset, held_out: Dataset) -> str:
    with pytest.raises(TrainingError) as caught:
        check(videos, held_out)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Dataset, Dataset]:
    return listed(tmp_path / "train", {"1": 0, "2": 1, "3": 0}), listed(tmp_path / "val", {"4": 1})


# --- classes -------------------------------------------------------------------------------------------------------


def test_two_lists_as_they_should_be(pair: tuple[Dataset, Dataset]) -> None:
    assert check(*pair) == []


@pytest.mark.parametrize(
    ("train", "val", "words"),
    [
        (("a", "b", "c"), ("a", "b"), ("only training has 'c'",)),
        (("a", "b"), ("a", "b", "c"), ("only validation has 'c'",)),
        (("a", "b"), ("a", "x"), ("only training has 'b'", "only validation has 'x'")),
        (("a", "b"), ("b", "a"), ("another order",)),
        (tuple("abcdefgh"), ("a", "b"), ("only training has 'c', 'd', 'e', 'f' and 2 more",)),
        (None, ("a", "b"), ("without names", "labels.txt")),
    ],
)
def test_classes_that_differ_are_named(
    pair: tuple[Dataset, Dataset], train: tuple[str, ...] | None, val: tuple[str, ...], words: tuple[str, ...]
) -> None:
    said = refusal(replace(pair[0], classes=train), replace(pair[1], classes=val))
    assert "not those of the training data" in said
    assert all(word in said for word in words)


@pytest.mark.parametrize("classes", [("fight",), ("a", "fight"), None])
def test_one_class_is_nothing_to_tell_apart(tmp_path: Path, classes: tuple[str, ...] | None) -> None:
    label = len(classes or "x") - 1
    videos = listed(tmp_path / "train", {"1": label, "2": label}, classes)
    said = refusal(videos, listed(tmp_path / "val", {"3": label}, classes))
    assert f"all 2 videos to train on are of one class, {(classes or ('class 0',))[-1]!r}" in said


@pytest.mark.parametrize(("classes", "name"), [(("a", "b", "empty"), "'empty'"), (None, "'class 2'")])
def test_a_class_without_a_video_to_train_on(tmp_path: Path, classes: tuple[str, ...] | None, name: str) -> None:
    videos = listed(tmp_path / "train", {"1": 0, "2": 1}, classes)
    assert f"no video to train on is of {name}" in refusal(videos, listed(tmp_path / "val", {"3": 2}, classes))


def test_a_class_without_a_video_to_measure_on_is_none_of_it(tmp_path: Path) -> None:
    assert check(listed(tmp_path / "train", {"1": 0, "2": 1}), listed(tmp_path / "val", {"3": 1})) == []


# --- videos --------------------------------------------------------------------------------------------------------


def shared_by_path(_: Path, val: Path) -> Dataset:
    return listed(val.parent / "train", {"2": 1})


def shared_by_other_path(_: Path, val: Path) -> Dataset:
    found = listed(val, {"4": 1})
    return replace(found, videos=(Video("x", val / ".." / "train" / "2", 1), *found.videos))


def shared_by_link(train: Path, val: Path) -> Dataset:
    val.mkdir()
    (val / "9").symlink_to(train / "2")
    return listed(val, {"4": 1, "9": 1})


def shared_by_hard_link(train: Path, val: Path) -> Dataset:
    val.mkdir()
    os.link(train / "2", val / "9")
    return listed(val, {"4": 1, "9": 1})


def shared_by_linked_folder(train: Path, val: Path) -> Dataset:
    val.symlink_to(train)
    return listed(val, {"2": 1})


@pytest.mark.parametrize(
    "share",
    [shared_by_path, shared_by_other_path, shared_by_link, shared_by_hard_link, shared_by_linked_folder],
)
def test_a_video_in_both_lists(tmp_path: Path, share: Callable[[Path, Path], Dataset]) -> None:
    videos = listed(tmp_path / "train", {"1": 0, "2": 1, "3": 0})
    said = refusal(videos, share(tmp_path / "train", tmp_path / "val"))
    assert said.startswith("1 video is in both the list to train on and the list to measure on, first ")
    assert "--val-list" in said


def test_videos_in_both_lists_are_counted(tmp_path: Path) -> None:
    videos = listed(tmp_path, {"1": 0, "2": 1, "3": 0})
    assert "2 videos are in both" in refusal(videos, replace(videos, videos=videos.videos[1:]))
    assert "first 2;" in refusal(videos, replace(videos, videos=videos.videos[1:]))


def test_a_published_name_is_one_video_wherever_it_lies(tmp_path: Path) -> None:
    videos = listed(tmp_path / "train", {"1": 0, "2": 1}, layout="something-v2")
    held_out = listed(tmp_path / "val", {"2": 1, "3": 1}, layout="something-v2")
    assert "1 video is in both" in refusal(videos, held_out)


def test_a_list_of_ones_own_may_call_two_videos_alike(tmp_path: Path) -> None:
    videos, held_out = listed(tmp_path / "train", {"1": 0, "2": 1}), listed(tmp_path / "val", {"2": 1})
    (tmp_path / "val" / "2").write_text("x", encoding="utf-8")
    assert check(videos, held_out) == []


def test_copies_are_warned_of(tmp_path: Path) -> None:
    videos, held_out = listed(tmp_path / "train", {"1": 0, "2": 1}), listed(tmp_path / "val", {"2": 1, "3": 1})
    (warning,) = check(videos, held_out)
    assert warning.startswith("1 video to be measured on, first 2, seem")


# --- lists and splits ----------------------------------------------------------------------------------------------


def test_a_list_for_the_other_part_is_warned_of(pair: tuple[Dataset, Dataset]) -> None:
    (warning,) = check(replace(pair[0], part="val"), replace(pair[1], part="val"))
    assert warning == f"{pair[0].list_path} is by its name a list for validation"


def test_weights_of_another_split_are_warned_of(pair: tuple[Dataset, Dataset]) -> None:
    model = "tsn_r50_ucf101_3seg_mm0"
    held_out = replace(pair[1], split=2)
    (warning,) = check(pair[0], held_out, model)
    assert f"{model} was trained on split 1" in warning
    assert "split 2" in warning
    assert check(pair[0], replace(held_out, split=1), model) == check(pair[0], held_out) == []


# --- the command ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lists") / "clips"
    motion.write(folder, 28, 5)
    return folder


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., Result]:
    def run(*options: object) -> Result:
        path = tmp_path / "mine.yaml"
        path.write_text(yaml.safe_dump(RECIPE), encoding="utf-8")
        arguments = ["train", str(path), "-o", str(tmp_path / "out"), *map(str, options)]
        return CliRunner().invoke(app, arguments, prog_name="tsmzoo")

    return run


def kinetics(folder: Path, clips: Path) -> Path:
    """Write the clips as Kinetics has them, every class in both lists but one that only validation has."""
    rows: dict[str, list[str]] = {"train": [], "val": []}
    seen: set[int] = set()
    for number, line in enumerate((clips / "annotations.txt").read_text().splitlines()):
        name, label = line.split()
        part = "train" if int(label) not in seen and label != "13" else "val"
        seen.add(int(label))
        (folder / part).mkdir(parents=True, exist_ok=True)
        shutil.copy(clips / name, folder / part / f"id{number:09d}_000001_000011.mp4")
        rows[part].append(f"{motion.CLASSES[int(label)]},id{number:09d},1,11,{part}\n")
    for part, lines in rows.items():
        (folder / f"{part}.csv").write_text(f"{KINETICS}\n{''.join(lines)}")
    return folder


def test_train_reads_the_list_for_training(train: Callable[..., Result], clips: Path, tmp_path: Path) -> None:
    data = kinetics(tmp_path / "kin", clips)
    result = train("--data", data, "--val", data, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    for part, count in (("train", 13), ("val", 15)):
        assert document[f"{part}_list"] == str(data / f"{part}.csv")
        assert document[f"{part}_videos"] == count
        assert document[f"{part}_list_sha256"] == layouts.read(data, part=part).list_sha256
    assert f"no video to train on is of {motion.CLASSES[13]!r}" in result.stderr
    own = registry.load(tmp_path / "out" / "registry.yaml")
    assert own.label_names(own.find("mine")) == tuple(sorted(motion.CLASSES))
    again = train("--data", data, "--val", data)
    assert f"{data / 'train.csv'} (13 videos) and {data / 'val.csv'} (15 videos)" in again.stdout


@pytest.mark.slow
def test_train_takes_other_lists_layouts_and_splits(train: Callable[..., Result], clips: Path, tmp_path: Path) -> None:
    lines = (clips / "annotations.txt").read_text().splitlines(keepends=True)
    lists = [tmp_path / f"{name}.txt" for name in ("train", "val")]
    lists[0].write_text("".join(lines[:26]))
    lists[1].write_text("".join(lines[26:]))
    both = ("--data", clips, "--val", clips, "--format", "list", "--split", "2")
    result = train(*both, "--train-list", lists[0], "--val-list", lists[1], "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert (document["train_videos"], document["val_videos"]) == (26, 2)
    assert (document["train_list"], document["val_list"]) == tuple(map(str, lists))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--data", "{clips}", "--val", "{clips}"), ("28 videos are in both", "--val-list")),
        (("--data", "{only}", "--val", "{clips}"), ("holds a list for validation, val.csv", "--train-list FILE")),
        (("--data", "{clips}", "--val", "{train}"), ("holds a list for training, train.csv", "--val-list FILE")),
        (("--data", "{none}", "--val", "{clips}"), ("annotations.txt", "--train-list FILE")),
        (("--data", "{clips}", "--val", "{none}"), ("annotations.txt", "--val-list FILE")),
        (("--data", "{two}", "--val", "{clips}"), ("--format",)),
        (("--data", "{clips}", "--val", "{clips}", "--format", "kinetix"), ("no layout",)),
    ],
)
def test_train_advises_options_that_it_has(
    train: Callable[..., Result], clips: Path, tmp_path: Path, options: tuple[str, ...], words: tuple[str, ...]
) -> None:
    places = {name: tmp_path / name for name in ("only", "train", "none", "two")}
    for place in places.values():
        place.mkdir()
    for path in (places["only"] / "val.csv", places["two"] / "train.csv", places["train"] / "train.csv"):
        path.write_text(KINETICS)
    (places["two"] / "train.json").write_text("[]")
    result = train(*(option.format(clips=clips, **places) for option in options))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    help_ = CliRunner().invoke(app, ["train", "--help"], env={"COLUMNS": "200"}).stdout
    for word in words:
        assert word in result.stderr
        assert not word.startswith("--") or word.split()[0] in help_
    assert not (tmp_path / "out").exists()


def test_the_hidden_name_of_the_option_is_not_a_second_list(train: Callable[..., Result], clips: Path) -> None:
    path = clips / "annotations.txt"
    result = train("--data", clips, "--val", clips, "--train-list", path, "--list", path)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--list is --train-list" in result.stderr


def test_train_says_what_it_left_out_and_what_is_listed_twice(
    train_tiny: Callable[..., Result], record: Callable[[Path, int, int], Path], tmp_path: Path
) -> None:
    record(tmp_path / "made", 6, 1)
    for part in ("data", "val"):
        for number in range(6):
            place = tmp_path / part / ("red", "blue")[number % 2] / f"{part}{number}.mp4"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes((tmp_path / "made" / f"{number}.mp4").read_bytes())
    (tmp_path / "data" / "red" / "notes.doc").touch()
    (tmp_path / "val" / "blue" / "why.doc").touch()
    result = train_tiny("--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["left_out"] == ["red/notes.doc", "blue/why.doc"]
    lines = tmp_path / "twice.txt"
    lines.write_text("red/data0.mp4 0\nblue/data1.mp4 1\nred/data2.mp4 0\nblue/data3.mp4 1\nred/data0.mp4 0\n")
    (tmp_path / "data" / "labels.txt").write_text("red\nblue\n")
    listed = layouts.read(tmp_path / "data", lines)
    assert [note for note in layouts.notes(listed) if "twice.txt" in note] == [
        f"note: 1 lines of {lines} name a video again; each counts once"
    ]
