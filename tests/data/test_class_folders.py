"""A folder a class: which videos are found, and what is said of the rest."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from tsmzoo.data import layouts
from tsmzoo.data.dataset import VIDEO_ENDINGS
from tsmzoo.errors import DataError


def put(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def images(folder: Path) -> None:
    put(*(folder / f"img_{number:05d}.jpg" for number in range(1, 4)))


def found(folder: Path, **options: object) -> dict[str, str]:
    read = layouts.read(folder, **options)
    assert (read.layout, read.classes) == ("folders", tuple(sorted(read.classes or ())))
    for video in read.videos:
        assert video.path.exists()
    return {video.name: read.classes[video.label] for video in read.videos}


def refusal(folder: Path, **options: object) -> str:
    with pytest.raises(DataError) as caught:
        layouts.read(folder, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """Give a folder of two classes with a video each."""
    folder = tmp_path / "data"
    put(folder / "clap" / "1.mp4", folder / "wave" / "2.mp4")
    return folder


BOTH = {"clap/1.mp4": "clap", "wave/2.mp4": "wave"}


@pytest.mark.parametrize("ending", [*VIDEO_ENDINGS, ".MP4", ".Avi", ".MTS"])
def test_videos_of_any_ending(classes: Path, ending: str) -> None:
    put(classes / "nod" / f"a{ending}", classes / "wave" / f"b{ending}")
    assert found(classes) == BOTH | {f"nod/a{ending}": "nod", f"wave/b{ending}": "wave"}
    assert layouts.read(classes).left_out == ()


@pytest.mark.parametrize("deeper", ["person 1", "a/b", "2024.01.02/cam.1"])
def test_videos_in_folders_of_a_class(classes: Path, deeper: str) -> None:
    put(classes / "clap" / deeper / "3.mp4", classes / "nod" / deeper / "4.mkv")
    images(classes / "wave" / deeper / "5")
    assert found(classes) == BOTH | {
        f"clap/{deeper}/3.mp4": "clap",
        f"nod/{deeper}/4.mkv": "nod",
        f"wave/{deeper}/5": "wave",
    }


def test_a_folder_around_the_classes(classes: Path) -> None:
    assert found(classes.parent) == BOTH
    put(classes.parent / "README.txt", classes.parent / "classes.txt")
    assert found(classes.parent) == BOTH
    put(classes.parent / "my list.txt")  # which may say other classes
    assert "--list FILE" in refusal(classes.parent)


def test_what_systems_leave_is_none_of_it(classes: Path) -> None:
    whole = layouts.read(classes)
    put(classes / "__MACOSX" / "clap" / "._1.mp4", classes / ".cache" / "x.mp4", classes / ".DS_Store")
    put(classes / "clap" / "._1.mp4", classes / "clap" / ".DS_Store", classes / "wave" / "Thumbs.db")
    put(classes / "wave" / ".ipynb_checkpoints" / "2.mp4", classes / "wave" / "@eaDir" / "2.mp4" / "x.jpg")
    assert layouts.read(classes) == whole
    assert found(classes) == BOTH


def test_what_is_left_out_is_named(classes: Path) -> None:
    put(classes / "clap" / "notes.txt", classes / "wave" / "more" / "2.mp5", classes / "stray.mp4", classes / "list.md")
    put(classes / "docs" / "how.pdf")
    read = layouts.read(classes)
    assert found(classes) == BOTH
    assert set(read.left_out) == {"clap/notes.txt", "wave/more/2.mp5", "stray.mp4", "docs/how.pdf"}
    (note,) = layouts.notes(read)
    assert note.startswith("note: 4 files ")
    assert all(name in note for name in read.left_out)


def test_a_class_that_nobody_can_read_is_named(classes: Path) -> None:
    for name in ("nod", "jump"):
        put(classes / name / "a.mp5", classes / name / "b.mp5")
    put(classes / "bow" / "img_0001.jpg")
    said = refusal(classes)
    for name in ("'bow' (1 file, such as img_0001.jpg)", "'jump' (2 files, such as a.mp5)", "'nod'"):
        assert name in said
    assert "annotations.txt" not in said


def test_an_empty_class_is_named_and_keeps_its_place(classes: Path) -> None:
    (classes / "nod" / "deeper").mkdir(parents=True)
    read = layouts.read(classes)
    assert read.classes == ("clap", "nod", "wave")
    assert [video.label for video in read.videos] == [0, 2]
    assert layouts.notes(read) == ["note: no video is in the folder of the class 'nod'"]


def test_one_class(tmp_path: Path) -> None:
    put(tmp_path / "fight" / "1.mp4")
    assert found(tmp_path) == {"fight/1.mp4": "fight"}


def test_videos_and_folders_of_images_in_one_class(classes: Path) -> None:
    images(classes / "clap" / "3")
    images(classes / "clap" / "4.avi")  # as lists of images are often called
    images(classes / "wave" / "2")  # those of 2.mp4, which counts once
    assert found(classes) == BOTH | {"clap/3": "clap", "clap/4.avi": "clap"}
    assert layouts.read(classes).left_out == ("wave/2/",)


@pytest.mark.parametrize("name", ["thumbs", "frames", "clap_thumbs 1", "Preview-2", "1_frames", "1.avi", "frames/1"])
def test_images_of_videos_that_are_there_are_no_videos(classes: Path, name: str) -> None:
    images(classes / "clap" / name)
    assert found(classes) == BOTH
    assert layouts.read(classes).left_out == (f"clap/{name}/",)


@pytest.mark.parametrize(
    "names", [("rgb", "depth"), ("frames", "flow_x", "flow_y"), ("img", "mask_1"), ("left", "right")]
)
def test_a_video_in_several_ways_is_not_several_videos(classes: Path, names: tuple[str, ...]) -> None:
    for name in names:
        for video in ("v1", "v2"):
            images(classes / "nod" / video / name)
    said = refusal(classes)
    assert f"{classes / 'nod' / 'v1'}: holds several folders of images" in said
    assert all(f"{name}/" in said for name in names)


def test_folders_of_images_of_several_people_and_takes(classes: Path) -> None:
    places = ("ann/take 1", "ann/take 2", "bob/take 1", "bob/take 2", "day 1/cat", "day 1/dan", "eve", "fred")
    for name in places:
        images(classes / "nod" / name)
    assert found(classes) == BOTH | {f"nod/{name}": "nod" for name in places}


def test_links_are_followed_but_not_in_circles(classes: Path, tmp_path: Path) -> None:
    put(tmp_path / "far" / "nod" / "3.mp4", tmp_path / "far" / "4.mp4")
    (classes / "nod").symlink_to(tmp_path / "far" / "nod")
    (classes / "clap" / "4.mp4").symlink_to(tmp_path / "far" / "4.mp4")
    (classes / "wave" / "again").symlink_to(classes / "wave")
    (classes / "wave" / "up").symlink_to(classes)
    (classes / "wave" / "self").symlink_to("self")
    assert found(classes) == BOTH | {"nod/3.mp4": "nod", "clap/4.mp4": "clap"}
    (tmp_path / "linked").symlink_to(classes)
    assert found(tmp_path / "linked") == found(classes)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_are_the_same_in_any_form_of_unicode(tmp_path: Path, form: str) -> None:
    put(tmp_path / unicodedata.normalize(form, "éclair") / "1.mp4", tmp_path / "wave" / "2.mp4")
    assert layouts.read(tmp_path).classes == ("wave", unicodedata.normalize("NFC", "éclair"))


@pytest.mark.parametrize(("train", "val"), [("train", "val"), ("Training", "validation"), ("train", "test")])
def test_folders_of_parts(tmp_path: Path, train: str, val: str) -> None:
    for part in (train, val):
        put(tmp_path / part / "clap" / f"{part}.mp4", tmp_path / part / "wave" / "2.mp4")
    (tmp_path / "scripts").mkdir()
    for part, folder in (("train", train), ("val", val)):
        read = layouts.read(tmp_path, part=part)
        assert {video.path for video in read.videos} == {
            tmp_path / folder / "clap" / f"{folder}.mp4",
            tmp_path / folder / "wave" / "2.mp4",
        }
        assert read.list_path == tmp_path / folder
        assert read.list_sha256 == layouts.read(tmp_path / folder).list_sha256


def test_a_part_that_is_not_there_is_named(tmp_path: Path) -> None:
    put(tmp_path / "train" / "clap" / "1.mp4", tmp_path / "train" / "wave" / "2.mp4")
    assert "classes in train/ and none for validation; expected val/" in refusal(tmp_path)
    assert len(layouts.read(tmp_path, part="train")) == 2


@pytest.mark.parametrize("layout", [None, "folders"])
def test_a_folder_beside_parts_is_no_class(tmp_path: Path, layout: str | None) -> None:
    for part in ("train", "val", "demo"):
        put(tmp_path / part / "clap" / "1.mp4", tmp_path / part / "wave" / "2.mp4")
    for part in ("train", "val"):
        read = layouts.read(tmp_path, part=part, layout=layout)
        assert (read.classes, read.list_path, len(read)) == (("clap", "wave"), tmp_path / part, 2)
        assert read.left_out == ("demo/",)
    (tmp_path / "val").rename(tmp_path / "more")
    assert "classes in train/ and none for validation; expected val/" in refusal(tmp_path, layout=layout)


def test_a_list_beside_a_folder_of_classes_is_asked_about(classes: Path) -> None:
    classes.rename(classes.parent / "videos")
    put(classes.parent / "meta.csv")
    said = refusal(classes.parent)
    assert "holds videos in videos/ and meta.csv" in said
    assert "--list FILE" in said
    assert found(classes.parent, layout="folders") == BOTH
    assert "--train-list FILE" in refusal(classes.parent, option="--train-list")


@pytest.mark.parametrize("part", ["train", "val"])
@pytest.mark.parametrize("name", ["train.csv", "val.csv", "validate.csv"])
@pytest.mark.parametrize("content", ["path,label\nclap/1.mp4,0\n", ""])
def test_a_table_of_something_else_hides_no_classes(classes: Path, part: str, name: str, content: str) -> None:
    (classes / name).write_text(content)
    assert found(classes, part=part) == BOTH


def test_a_table_of_something_else_is_told_by_its_columns(tmp_path: Path) -> None:
    (tmp_path / "val.csv").write_text("path,label\n1.mp4,0\n")
    for options in ({}, {"layout": "kinetics"}, {"list_file": tmp_path / "val.csv", "layout": "kinetics"}):
        assert "it has no column youtube_id or time_start or time_end" in refusal(tmp_path, **options)


def test_parts_without_classes_are_no_classes(tmp_path: Path) -> None:
    put(tmp_path / "train" / "1.mp4", tmp_path / "val" / "2.mp4")
    assert "parts of the data and no classes" in refusal(tmp_path)


def test_a_class_may_be_called_as_a_part(tmp_path: Path) -> None:
    put(tmp_path / "train" / "1.mp4", tmp_path / "bus" / "2.mp4", tmp_path / "test" / "3.mp4")
    assert found(tmp_path) == {"bus/2.mp4": "bus", "test/3.mp4": "test", "train/1.mp4": "train"}


def test_a_name_that_cannot_be_written_down_is_refused(classes: Path) -> None:
    (classes / "clap" / "\udcff.mp4").touch()
    assert "rename it" in refusal(classes)
    (classes / "clap" / "\udcff.mp4").unlink()
    put(classes / "clap" / "family \U0001f468‍\U0001f469 \u00a0.mp4")
    assert len(found(classes)) == 3


def test_no_folder_is_too_deep(classes: Path) -> None:
    place = classes / "clap"
    for _ in range(100):
        place = place / "d"
    put(place / "3.mp4")
    assert found(classes) == BOTH
    (left_out,) = layouts.read(classes).left_out
    assert left_out.startswith("clap/d/d/")
