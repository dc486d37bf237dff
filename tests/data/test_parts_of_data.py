"""Which of a dataset's lists is read for training and which for validation, and of which split."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tsmzoo.data import layouts
from tsmzoo.errors import DataError

KINETICS = "label,youtube_id,time_start,time_end,split"


def put(path: Path, *lines: str) -> Path:
    """Write a list, or with no lines the empty file that stands for a video."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def refusal(*arguments: object, **options: object) -> str:
    with pytest.raises(DataError) as caught:
        layouts.read(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def names(found: layouts.Dataset) -> set[str]:
    assert found.classes is not None
    return {f"{Path(video.name).stem}: {found.classes[video.label]}" for video in found.videos}


def something_v2(root: Path, train: str, val: str) -> None:
    put(root / "labels.json", json.dumps({"Closing something": "0", "Opening something": "1"}))
    put(root / train, json.dumps([{"id": "1", "template": "Opening [something]"}]))
    put(root / val, json.dumps([{"id": "2", "template": "Closing [something]"}]))


def ids(root: Path, name: str, train: str, val: str) -> None:
    put(root / f"{name}-labels.csv", "Closing something", "Opening something")
    put(root / train, "1;Opening something")
    put(root / val, "2;Closing something")


def kinetics(root: Path, train: str, val: str) -> None:
    for name, id_, label in ((train, "1", "Opening something"), (val, "2", "Closing something")):
        put(root / name, KINETICS, f"{label},{id_},0,10,x")


def paths(root: Path, train: str, val: str) -> None:
    put(root / train, "1.mp4 1")
    put(root / val, "2.mp4 0")
    put(root / "labels.txt", "Closing something", "Opening something")


def ucf101(root: Path, train: str, val: str) -> None:
    put(root / "classInd.txt", "1 Closing something", "2 Opening something")
    # Names of classes here have a space, those of videos none.
    put(root / "classInd.txt", "1 Closing", "2 Opening")
    put(root / train, "Opening/1.avi 2")
    put(root / val, "Closing/2.avi")


def hmdb51(root: Path, *_: str) -> None:
    put(root / "splits" / "opening_test_split1.txt", "1.avi 1", "3.avi 0")
    put(root / "splits" / "closing_test_split1.txt", "2.avi 2", "4.avi 0")


V1, V2, JESTER = "something-something-v1", "something-something-v2", "jester-v1"
OFFICIAL: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "V2": (lambda root: something_v2(root, "train.json", "validation.json"), "train.json", "validation.json"),
    "V2, long": (
        lambda root: something_v2(root, f"{V2}-train.json", f"{V2}-validation.json"),
        f"{V2}-train.json",
        f"{V2}-validation.json",
    ),
    **{
        name: (
            lambda root, name=name: ids(root, name, f"{name}-train.csv", f"{name}-validation.csv"),
            f"{name}-train.csv",
            f"{name}-validation.csv",
        )
        for name in (V1, JESTER)
    },
    **{
        train: (lambda root, train=train, val=val: kinetics(root, train, val), train, val)
        for train, val in (
            ("train.csv", "val.csv"),
            ("a/train.csv", "a/validate.csv"),
            ("kinetics_train.csv", "kinetics_val.csv"),
            ("kinetics-400_train.csv", "kinetics-400_validate.csv"),
        )
    },
    **{
        train: (lambda root, train=train, val=val: paths(root, train, val), train, val)
        for train, val in (
            ("train_videofolder.txt", "val_videofolder.txt"),
            ("sthv2_train_list_videos.txt", "sthv2_val_list_videos.txt"),
            ("kinetics400_train_list_rawframes.txt", "kinetics400_val_list_rawframes.txt"),
            ("ucf101_train_split_1_videos.txt", "ucf101_val_split_1_videos.txt"),
            ("hmdb51_train_split_1_rawframes.txt", "hmdb51_val_split_1_rawframes.txt"),
            ("ucf101_rgb_train_split_1.txt", "ucf101_rgb_val_split_1.txt"),
        )
    },
    "UCF101": (lambda root: ucf101(root, "trainlist01.txt", "testlist01.txt"), "trainlist01.txt", "testlist01.txt"),
}


@pytest.mark.parametrize("name", OFFICIAL)
def test_each_part_has_its_list(tmp_path: Path, name: str) -> None:
    make, train, val = OFFICIAL[name]
    make(tmp_path)
    for number in (1, 2):
        for place in (f"videos/{number}.mp4", f"videos/{number}_000000_000010.mp4"):
            put(tmp_path / place)
    for part, file, word in (("train", train, "open"), ("val", val, "clos")):
        found = layouts.read(tmp_path, part=part)
        (video,) = found.videos
        assert found.classes is not None
        assert found.classes[video.label].lower().startswith(word)
        assert (found.list_path, found.part) == (tmp_path / file, part)
        assert video.path.name[0] == str(1 if part == "train" else 2)
    assert layouts.read(tmp_path) == layouts.read(tmp_path, part="val"), "what evaluation reads"


@pytest.mark.parametrize("name", OFFICIAL)
@pytest.mark.parametrize("part", ["train", "val"])
def test_a_list_of_the_other_part_is_never_taken(tmp_path: Path, name: str, part: str) -> None:
    make, train, val = OFFICIAL[name]
    make(tmp_path)
    for number in (1, 2):
        for word in ("opening", "closing"):  # which are no folders of classes either
            put(tmp_path / word / f"{number}.mp4")
    (tmp_path / (train if part == "train" else val)).unlink()
    said = refusal(tmp_path, part=part, option="--train-list")
    purposes = ("validation", "training") if part == "train" else ("training", "validation")
    assert f"holds a list for {purposes[0]}, {val if part == 'train' else train}, and none for {purposes[1]}" in said
    assert "--train-list FILE" in said


def test_marks_of_hmdb51(tmp_path: Path) -> None:
    hmdb51(tmp_path)
    put(tmp_path / "splits" / "._opening_test_split1.txt").write_bytes(b"\0\5\x16\7")  # of a Mac's archive
    for number in range(1, 5):
        put(tmp_path / "videos" / f"{number}.avi")
    assert names(layouts.read(tmp_path, part="train")) == {"1: opening"}
    assert names(layouts.read(tmp_path)) == {"2: closing"}
    assert names(layouts.read(tmp_path, tmp_path / "splits", part="train")) == {"1: opening"}
    put(tmp_path / "splits" / "opening_test_split1.txt", "1.avi 3")
    assert "must end in 0, 1 or 2" in refusal(tmp_path)


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_list_for_either_is_read_for_both(tmp_path: Path, part: str) -> None:
    put(tmp_path / "1.mp4")
    put(tmp_path / "annotations.txt", "1.mp4 0")
    found = layouts.read(tmp_path, part=part)
    assert (len(found), found.part, found.split) == (1, None, None)


@pytest.mark.parametrize(("train", "val"), [("train", "val"), ("Training", "Validation"), ("train", "test")])
@pytest.mark.parametrize("name", ["annotations.txt", "val.csv"])
def test_of_lists_of_one_name_the_folder_tells(tmp_path: Path, train: str, val: str, name: str) -> None:
    for folder, id_ in ((train, "1"), (val, "2")):
        head, line = (KINETICS, f"x,{id_},0,10,x") if name == "val.csv" else ("", f"{id_}.mp4 0")
        put(tmp_path / folder / name, head, line)
        put(tmp_path / folder / f"{id_}.mp4")
    for part, folder in (("train", train), ("val", val)) if name == "annotations.txt" else (("val", val),):
        found = layouts.read(tmp_path, part=part)
        assert found.list_path == tmp_path / folder / name
        assert [video.path.parent for video in found.videos] == [tmp_path / folder]
    put(tmp_path / "more" / name, "3.mp4 0")
    assert layouts.read(tmp_path).list_path == tmp_path / val / name
    (tmp_path / val / name).unlink()
    assert "holds several lists" in refusal(tmp_path)


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_list_that_is_named_is_read_for_what_it_is_asked_for(tmp_path: Path, part: str) -> None:
    make, train, val = OFFICIAL["train.csv"]
    make(tmp_path)
    put(tmp_path / "1.mp4")
    put(tmp_path / "2.mp4")
    for file, own in ((train, "train"), (val, "val")):
        found = layouts.read(tmp_path, tmp_path / file, part=part)
        assert (found.list_path, found.part) == (tmp_path / file, own)


@pytest.mark.parametrize(
    ("made", "others"),
    [
        ("testlist{}.txt", "Closing/{}.avi"),
        ("ucf101_val_split_{}_videos.txt", "{}.avi 0"),
        ("hmdb51_val_split_{}_rawframes.txt", "{}.avi 0"),
    ],
)
def test_splits(tmp_path: Path, made: str, others: str) -> None:
    put(tmp_path / "classInd.txt", "1 Closing")
    for split in (1, 2, 3):
        put(tmp_path / made.format(f"0{split}" if "testlist" in made else split), others.format(split))
        put(tmp_path / "videos" / f"{split}.avi")
    for split in (1, 2, 3):
        found = layouts.read(tmp_path, split=split)
        assert (Path(found.videos[0].name).stem, found.split, found.part) == (str(split), split, "val")


def test_a_split_that_is_not_there_is_not_another(tmp_path: Path) -> None:
    put(tmp_path / "classInd.txt", "1 Closing")
    put(tmp_path / "testlist01.txt", "Closing/1.avi")
    put(tmp_path / "Closing" / "1.avi")
    put(tmp_path / "Opening" / "1.avi")
    assert "holds a list of split 1, testlist01.txt, and none of split 2; expected testlist02.txt" in refusal(
        tmp_path, split=2
    )


def test_classes_of_kinetics_are_those_of_both_lists(tmp_path: Path) -> None:
    rows = {"train": (("archery", "1"), ("waving", "2")), "val": (("bowling", "3"), ("waving", "4"))}
    for part, said in rows.items():
        put(tmp_path / f"{part}.csv", KINETICS, *(f"{label},{id_},0,10,x" for label, id_ in said))
        for _, id_ in said:
            put(tmp_path / part / f"{id_}_000000_000010.mp4")
    both = layouts.share_classes(layouts.read(tmp_path, part="train"), layouts.read(tmp_path, part="val"))
    assert [part.classes for part in both] == [("archery", "bowling", "waving")] * 2
    assert [[video.label for video in part.videos] for part in both] == [[0, 2], [1, 2]]
