"""Data that are laid out wrongly, or belong to another model: what is said of them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest

from tsmzoo import registry
from tsmzoo.data import layouts
from tsmzoo.errors import DataError
from tsmzoo.evaluation.evaluate import fitted

from .conftest import (
    HMDB,
    K400,
    KINETICS,
    TEMPLATES,
    V2,
    answers,
    contract,
    hmdb51,
    kinetics,
    listed,
    names_of,
    put,
    read,
    refusal,
    something_v2,
    ucf101,
)

ZOO = registry.load()
MOMENTS, SEVERAL, MOTION = "tsn_r50_moments_6seg_mm0", "tsn_r101_mmoments_5seg_mm0", "tsm_mbv2_motion"


# --- data that are wrong -------------------------------------------------------------------------------------------


def test_a_folder_of_nothing_known_says_all_that_is_expected(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt", "c.txt", "d.txt", "e.txt"):
        put(tmp_path / name)
    put(tmp_path / "videos" / "v.mp4")
    said = refusal(tmp_path)
    assert said.startswith(f"{tmp_path}: holds a.txt, b.txt, c.txt, d.txt and 2 more; expected ")
    assert all(kind.expects.format(split=1) in said for kind in layouts.LAYOUTS.values())
    assert "--list" in said


def test_a_folder_or_list_that_is_not_there(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere").startswith(f"{tmp_path / 'nowhere'}: is no folder")
    assert refusal(put(tmp_path / "v.mp4")).startswith(f"{tmp_path / 'v.mp4'}: is no folder")
    assert refusal(tmp_path, tmp_path / "val.txt").startswith(f"{tmp_path / 'val.txt'}: does not exist")
    assert "'kinetic'; there are list, something-v2" in refusal(tmp_path, layout="kinetic")
    (tmp_path / "v.mp4").unlink()
    assert "holds nothing; expected" in refusal(tmp_path)


def test_two_datasets_or_two_lists_in_a_folder_are_not_guessed_at(tmp_path: Path) -> None:
    kinetics(tmp_path / "val.csv", ("clap", "a", 0, 10))
    first = put(tmp_path / "annotations.txt", "a.mp4 3")
    put(tmp_path / "a.mp4")
    said = refusal(tmp_path)
    assert "list (annotations.txt); kinetics (val.csv); choose one with --format" in said
    assert read(tmp_path, layout="kinetics") == {"a_000000_000010": ("a.mp4", "clap")}
    assert read(tmp_path, layout="list") == {"a.mp4": ("a.mp4", 3)}
    second = put(tmp_path / "lists" / "val_videofolder.txt", "a.mp4 4")
    said = refusal(tmp_path, layout="list")
    assert all(str(path) in said for path in (first, second))
    assert "choose with --list" in said
    assert read(tmp_path, second) == {"a.mp4": ("a.mp4", 4)}


@pytest.mark.parametrize("layout", [name for name in layouts.LAYOUTS if name != "folders"])
def test_a_layout_that_was_asked_for_and_is_not_there(tmp_path: Path, layout: str) -> None:
    put(tmp_path / "clap" / "v.mp4")
    put(tmp_path / "wave" / "v.mp4")
    said = refusal(tmp_path, layout=layout)
    assert f"holds clap/, wave/; expected {layouts.LAYOUTS[layout].expects.format(split=1)}" in said


@pytest.mark.parametrize(("make", "name"), [(ucf101, "testlist03.txt"), (hmdb51, "_test_split3.txt")])
def test_a_split_that_is_not_there_is_named(tmp_path: Path, make: object, name: str) -> None:
    make(tmp_path)
    put(tmp_path / "videos" / "wave" / "b_wave_1.avi")
    assert name in refusal(tmp_path, split=3)


def test_videos_that_lie_nowhere_near(tmp_path: Path) -> None:
    kinetics(tmp_path / "val.csv", ("air drumming", "Zx_9", 0, 10))
    put(tmp_path / "train" / "other_000000_000010.mp4")
    said = refusal(tmp_path)
    assert "of val.csv is there; expected for instance Zx_9_000000_000010.mp4" in said
    assert "found train/, val.csv" in said


def test_a_folder_that_may_not_be_read_is_passed_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk of its own for the data has lost+found on it, which is root's."""
    something_v2(tmp_path, "labels/validation.json", "labels/labels.json")
    (tmp_path / "lost+found").mkdir()
    for id_ in TEMPLATES:
        put(tmp_path / "videos" / f"{id_}.webm")
    scandir = os.scandir

    def guarded(path: Path) -> object:
        if Path(path).name == "lost+found":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    assert len(layouts.read(tmp_path)) == len(TEMPLATES)


LABELS = {"Clapping": "0", "Waving": "1"}
V1_LABELS = ("something-something-v1-labels.csv", "Clapping")


@pytest.mark.parametrize(
    ("lists", "words"),
    [
        ([("annotations.txt", "a.mp4 0", "b.mp4")], "annotations.txt: line 2 is 'b.mp4'; it must be a path and the"),
        ([("annotations.txt", "a.mp4 clapping")], "line 1 is 'a.mp4 clapping'; it must be a path and the index of"),
        ([("annotations.txt", "a.mp4 -1")], "line 1 is 'a.mp4 -1'; it must be a path and the index of"),
        ([("annotations.txt",)], "annotations.txt: lists no video; expected annotations.txt or another list of"),
        ([("annotations.txt", "a.mp4 0", "a.mp4 1")], "lists a.mp4 twice, and not alike"),
        ([("annotations.txt", "a.mp4 2"), ("labels.txt", "x", "y")], "a.mp4 has class 2, but only 2 are named"),
        ([("validation.json", "[]")], "validation.json: needs labels.json (or something-something-v2-labels.json)"),
        ([("validation.json", "[]"), ("labels.json", "{}")], "lists no video; expected validation.json and labels"),
        ([("validation.json", '[{"id": "a"'), ("labels.json", "{}")], "validation.json: is not JSON"),
        ([("validation.json", '{"a": "x"}'), ("labels.json", "{}")], "validation.json: is not laid out as expected"),
        ([("validation.json", '[{"id": "a"}]'), ("labels.json", "{}")], "'template'); expected validation.json and"),
        (
            [("validation.json", '[{"id": "a", "template": null}]'), ("labels.json", '{"Clapping": "0"}')],
            "validation.json: a is of class 'None'",
        ),
        (
            [("validation.json", '[{"id": "a", "template": "x"}]'), ("labels.json", '{"Clapping": "first"}')],
            "labels.json: is no mapping from a class to its index",
        ),
        (
            [("validation.json", '[{"id": "a", "template": "Nodding"}]'), ("labels.json", json.dumps(LABELS))],
            "a is of class 'Nodding', which the labels beside it lack",
        ),
        ([("something-something-v1-validation.csv", "a;Clapping")], "needs something-something-v1-labels.csv beside"),
        ([("jester-v1-validation.csv", "a;Clapping")], "needs jester-v1-labels.csv beside it"),
        ([("something-something-v1-validation.csv", "a,Clapping"), V1_LABELS], "'a,Clapping' must be `id;label`"),
        ([("something-something-v1-validation.csv", "a;Nodding"), V1_LABELS], "a is of class 'Nodding', which"),
        ([("val.csv", "name,class", "a,Clapping")], "val.csv: is not laid out as expected"),
        ([("val.csv", KINETICS, "Clapping,a,soon,20,validate")], "'soon'); expected validate.csv or val.csv of Kin"),
        ([("val.csv", KINETICS, "Clapping,a")], "val.csv: is not laid out as expected"),
        ([("val.csv", KINETICS)], "val.csv: lists no video; expected validate.csv or val.csv of Kinetics-400"),
        ([("testlist01.txt", "Clapping/a.avi")], "testlist01.txt: needs classInd.txt beside it"),
        (
            [("testlist01.txt", "Clapping/a.avi"), ("classInd.txt", "Clapping")],
            "classInd.txt: must hold a number and a class",
        ),
        ([("testlist01.txt", "Nodding/a.avi"), ("classInd.txt", "1 Clapping")], "is of class 'Nodding', which the"),
        ([("clap_test_split1.txt", "a.avi")], "is not laid out as expected"),
        ([("clap_test_split1.txt", "a.avi 1")], "lists no video; expected the 51 files"),
    ],
)
def test_a_damaged_list(tmp_path: Path, lists: Iterable[tuple[str, ...]], words: str) -> None:
    for name, *lines in lists:
        put(tmp_path / name, *lines)
    for name in ("a.mp4", "a.avi"):
        put(tmp_path / "videos" / name)
    assert words in refusal(tmp_path)


@pytest.mark.parametrize("name", ["annotations.txt", "val.csv", "testlist01.txt", "jester-v1-validation.csv"])
@pytest.mark.parametrize("asked", [False, True])
def test_a_list_that_is_not_text(tmp_path: Path, name: str, asked: bool) -> None:
    """A video, or a list in UTF-16, by its official name and as --list."""
    put(tmp_path / "classInd.txt", "1 Clapping")
    put(tmp_path / "jester-v1-labels.csv", "Clapping")
    path = tmp_path / name
    path.write_bytes("a.mp4 0\n".encode("utf-16"))
    assert refusal(tmp_path, path if asked else None).startswith(f"{path}: is not text; write it anew as UTF-8")


@pytest.mark.parametrize(
    ("labels", "content", "listed", "line"),
    [
        ("labels.json", b"{", "validation.json", '[{"id": "a", "template": "Clapping"}]'),
        ("labels.txt", b"\xe9lan\n", "annotations.txt", "a.mp4 0"),
        ("classInd.txt", b"1 \xe9lan\n", "testlist01.txt", "Clapping/a.mp4"),
    ],
)
def test_labels_that_are_damaged_are_named(tmp_path: Path, labels: str, content: bytes, listed: str, line: str) -> None:
    put(tmp_path / listed, line)
    put(tmp_path / "a.mp4")
    (tmp_path / labels).write_bytes(content)
    assert str(tmp_path / labels) in refusal(tmp_path)


@pytest.mark.parametrize(
    "written",
    [
        lambda name: name,
        lambda name: name.upper(),
        lambda name: name.replace(" ", "_"),
        lambda name: name.replace("something", "[something]"),
        lambda name: f"{name} ",
    ],
)
def test_names_are_told_however_they_are_written(tmp_path: Path, written: object) -> None:
    names = names_of(V2)
    found = listed(tmp_path, range(174), [written(name) for name in reversed(names)])
    assert [video.label for video in fitted(ZOO, found, contract(V2)).videos] == list(reversed(range(174)))


@pytest.mark.parametrize("labels", sorted({entry.labels for entry in ZOO.by_id.values()}))
def test_no_two_classes_of_a_model_are_told_as_one(labels: str) -> None:
    entry = next(entry for entry in ZOO.by_id.values() if entry.labels == labels)
    names = ZOO.label_names(entry) or ()
    index_of = layouts.matcher(names)
    assert [index_of(name.upper().replace(" ", "_")) for name in names] == list(range(len(names)))


def test_a_list_without_names_is_taken_at_its_indices(tmp_path: Path) -> None:
    found = listed(tmp_path, [338, 0])
    assert fitted(ZOO, found, contract(MOMENTS)) == found
    with pytest.raises(DataError, match=r"the list has class 338, but tsm_r50_k400.* answers 14 classes"):
        fitted(ZOO, found, msgspec.structs.replace(contract(K400), classes=14))
    with pytest.raises(DataError, match=f"the list has class 338, but {MOTION} answers 14 classes"):
        fitted(ZOO, found, contract(MOTION))


def test_part_of_the_classes_is_enough(tmp_path: Path) -> None:
    for name in ("Archery", "Air Drumming"):
        put(tmp_path / name / "v.mp4")
    assert answers(layouts.read(tmp_path), K400) == {
        "Air Drumming/v.mp4": "air drumming",
        "Archery/v.mp4": "archery",
    }


def test_classes_of_another_dataset_are_refused(tmp_path: Path) -> None:
    ucf101(tmp_path)
    put(tmp_path / "UCF-101" / "Archery" / "v_Archery_g01_c01.avi")
    ucf = layouts.read(tmp_path)
    with pytest.raises(DataError, match=r"the data are ucf101, and .* trained on hmdb51; .*--dataset ucf101"):
        fitted(ZOO, ucf, contract(HMDB))
    with pytest.raises(DataError, match=f"not those of {K400}: it has no 'HandstandPushups'"):
        fitted(ZOO, ucf, contract(K400))
    clapping = listed(tmp_path / "mine", [1], ["archery", "juggling knives"])
    with pytest.raises(DataError, match=f"not those of {K400}: it has no 'juggling knives'"):
        fitted(ZOO, clapping, contract(K400))


def test_a_model_without_names_takes_data_of_as_many_classes(tmp_path: Path) -> None:
    nameless = msgspec.structs.replace(contract(K400), labels=None, classes=3)
    found = listed(tmp_path, [2], ["a", "b", "c"])
    assert fitted(ZOO, found, nameless) == found
    with pytest.raises(DataError, match=r"the data have 3 classes, .* has 4"):
        fitted(ZOO, found, msgspec.structs.replace(nameless, classes=4))


def test_a_model_of_several_classes_a_video_is_not_scored(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="answers several classes at once"):
        fitted(ZOO, listed(tmp_path, [0]), contract(SEVERAL))


def test_a_list_means_the_videos_in_its_own_folder(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        put(tmp_path / name / "videos" / "000001.mp4")
    put(tmp_path / "b" / "annotations.txt", "videos/000001.mp4 0")
    assert layouts.read(tmp_path).videos[0].path == tmp_path / "b" / "videos" / "000001.mp4"
