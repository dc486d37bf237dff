"""Official datasets and lists as their publishers lay them out: which videos are read, of which classes.

The videos are empty files, for a layout never opens them.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from tsmzoo import registry
from tsmzoo.data import dataset, layouts
from tsmzoo.errors import DataError
from tsmzoo.evaluation.evaluate import fitted
from tsmzoo.registry import paths

from .conftest import (
    HMDB,
    JESTER,
    K400,
    TEMPLATES,
    UCF,
    V1,
    V2,
    answers,
    contract,
    hmdb51,
    kinetics,
    names_of,
    put,
    read,
    refusal,
    something_v2,
    ucf101,
)

ZOO = registry.load()


def images(folder: Path, template: str = "{:05d}.jpg", count: int = 3) -> Path:
    """Make a folder of numbered images."""
    for number in range(1, count + 1):
        put(folder / template.format(number))
    return folder


@pytest.mark.parametrize(
    ("validation", "labels", "videos", "ending"),
    [
        ("something-something-v2-validation.json", "something-something-v2-labels.json", "20bn-{}", ".webm"),
        ("labels/validation.json", "labels/labels.json", "20bn-{}", ".webm"),
        ("labels/validation.json", "labels/labels.json", "videos/20bn-{}", ".webm"),
        ("validation.json", "labels.json", ".", ".mp4"),
        ("labels/validation.json", "labels/labels.json", "frames", ""),
    ],
)
def test_something_v2(tmp_path: Path, validation: str, labels: str, videos: str, ending: str) -> None:
    something_v2(tmp_path, validation, labels)
    folder = tmp_path / videos.format("something-something-v2")
    for id_ in TEMPLATES:
        put(folder / f"{id_}{ending}") if ending else images(folder / id_, "{:06d}.jpg")
    found = layouts.read(tmp_path)
    assert [video.path for video in found.videos] == [folder / f"{id_}{ending}" for id_ in TEMPLATES]
    assert (found.layout, found.of, found.classes) == ("something-v2", "somethingv2", names_of(V2))
    assert answers(found, V2) == {id_: name for id_, (_, name) in TEMPLATES.items()}


@pytest.mark.parametrize(
    ("name", "of", "model"),
    [
        ("something-something", "somethingv1", V1),
        ("something-something", "somethingv1", "tsm_r50_sthv1_8f_mm0"),
        ("jester", "jester", JESTER),
        ("jester", "jester", "tsm_mbv2_online"),
    ],
)
@pytest.mark.parametrize("lists", [".", "annotations"])
def test_lists_of_ids_and_labels(tmp_path: Path, name: str, of: str, model: str, lists: str) -> None:
    """Something-Something V1 and Jester: the published order of classes is that of some models only."""
    official = (ZOO.find("tsm_r50_sthv1_8f_mm0" if name == "something-something" else JESTER)).labels
    names = (paths.LABELS / f"{official}.txt").read_text(encoding="utf-8").splitlines()
    put(tmp_path / lists / f"{name}-v1-labels.csv", *names)
    put(tmp_path / lists / f"{name}-v1-validation.csv", f"7;{names[3]}", f"100218;{names[0]}")
    folders = [images(tmp_path / f"20bn-{name}-v1" / id_) for id_ in ("7", "100218")]
    found = layouts.read(tmp_path)
    assert [video.path for video in found.videos] == folders
    assert found.of == of
    assert answers(found, model) == {"7": names[3], "100218": names[0]}


def test_something_v1_is_no_data_for_weights_of_v2(tmp_path: Path) -> None:
    """The 174 names are the same, so only the layout tells."""
    assert all(layouts.matcher(names_of(V2))(name) is not None for name in names_of(V1))
    put(tmp_path / "something-something-v1-labels.csv", *names_of(V1))
    put(tmp_path / "something-something-v1-validation.csv", f"7;{names_of(V1)[0]}")
    images(tmp_path / "20bn-something-something-v1" / "7")
    with pytest.raises(DataError, match=r"somethingv1.*trained on somethingv2.*--dataset somethingv1"):
        fitted(ZOO, layouts.read(tmp_path), contract(V2))


def test_a_list_of_ids_is_told_by_the_labels_near_it(tmp_path: Path) -> None:
    data, path = tmp_path / "data", put(tmp_path / "mine" / "held_out.csv", "7;Swiping Left")
    images(data / "7")
    assert "neither lies beside it; say which with --format" in refusal(data, path)
    labels = put(data / "jester-v1-labels.csv", *names_of(JESTER))
    assert layouts.read(data, path).of == "jester"
    put(data / "something-something-v1-labels.csv", *names_of(V1))
    assert "both lie beside it; say which with --format" in refusal(data, path)
    labels.rename(path.parent / labels.name)
    assert read(data, path, "jester") == {"7": ("7", "Swiping Left")}


CLIPS = [("air drumming", "--0dXbTXSe4", 10, 20), ("passing American football (in game)", "Zx_9", 0, 10)]


@pytest.mark.parametrize(
    ("name", "videos"),
    [
        ("val.csv", ["val/--0dXbTXSe4_000010_000020.mp4", "val/Zx_9_000000_000010.mp4"]),
        ("annotations/val.csv", ["--0dXbTXSe4_000010_000020.mp4", "Zx_9_000000_000010.mp4"]),
        ("kinetics_val.csv", ["--0dXbTXSe4.mp4", "Zx_9.mkv"]),
        (
            "validate.csv",
            [
                "air drumming/--0dXbTXSe4_000010_000020.mp4",
                "passing American football (in game)/Zx_9_000000_000010.mp4",
            ],
        ),
        (
            "kinetics400/validate.csv",
            [
                "val_256/air_drumming/--0dXbTXSe4_000010_000020.mp4",
                "val_256/passing_American_football_(in_game)/Zx_9_000000_000010.webm",
            ],
        ),
    ],
)
def test_kinetics(tmp_path: Path, name: str, videos: list[str]) -> None:
    kinetics(tmp_path / name, *CLIPS)
    for video in videos:
        put(tmp_path / video)
    assert read(tmp_path) == {
        "--0dXbTXSe4_000010_000020": (videos[0], "air drumming"),
        "Zx_9_000000_000010": (videos[1], "passing American football (in game)"),
    }
    found = layouts.read(tmp_path)
    assert (found.layout, found.of) == ("kinetics", None)
    assert list(answers(found, K400).values()) == [label for label, *_ in CLIPS]


def test_videos_that_were_taken_down_stay_in_the_list(tmp_path: Path) -> None:
    clips = [("archery", f"id{number}", 0, 10) for number in range(40)]
    kinetics(tmp_path / "val.csv", *clips)
    for _, id_, *_ in clips[::3]:
        put(tmp_path / "val" / f"{id_}_000000_000010.mp4")
    found = layouts.read(tmp_path)
    assert len(found) == 40
    assert [video.path.is_file() for video in found.videos] == [number % 3 == 0 for number in range(40)]
    assert {video.path.parent for video in found.videos} == {tmp_path / "val"}


def test_a_small_part_of_a_dataset_is_found(tmp_path: Path) -> None:
    """Three videos of a thousand listed."""
    kinetics(tmp_path / "val.csv", *(("archery", f"id{number}", 0, 10) for number in range(1000)))
    there = {f"id{number}_000000_000010" for number in (5, 501, 777)}
    for name in there:
        put(tmp_path / "val" / f"{name}.mp4")
    found = layouts.read(tmp_path)
    assert {video.name for video in found.videos if video.path.is_file()} == there


def test_classes_of_kinetics_written_otherwise_are_the_same(tmp_path: Path) -> None:
    names = names_of(K400)
    written = [name.replace(" ", "_").title() for name in names]
    for name in written:
        put(tmp_path / name / "v.mp4")
    assert answers(layouts.read(tmp_path), K400) == {
        f"{folder}/v.mp4": name for folder, name in zip(written, names, strict=True)
    }


@pytest.mark.parametrize("flat", [False, True])
def test_ucf101(tmp_path: Path, flat: bool) -> None:
    ucf101(tmp_path)
    for name in (
        "Archery/v_Archery_g01_c01.avi",
        "Archery/v_Archery_g08_c03.avi",
        "HandstandPushups/v_HandStandPushups_g01_c01.avi",
    ):
        put(tmp_path / "UCF-101" / (name.split("/")[-1] if flat else name))
    place = "UCF-101" if flat else "UCF-101/{}"
    first = layouts.read(tmp_path)
    assert (first.of, first.classes) == ("ucf101", ("HandstandPushups", "Archery"))
    assert read(tmp_path) == {
        "Archery/v_Archery_g01_c01.avi": (f"{place.format('Archery')}/v_Archery_g01_c01.avi", "Archery"),
        "HandstandPushups/v_HandStandPushups_g01_c01.avi": (
            f"{place.format('HandstandPushups')}/v_HandStandPushups_g01_c01.avi",
            "HandstandPushups",
        ),
    }
    assert read(tmp_path, split=2) == {
        "Archery/v_Archery_g08_c03.avi": (f"{place.format('Archery')}/v_Archery_g08_c03.avi", "Archery")
    }
    assert list(answers(first, UCF).values()) == ["Archery", "HandstandPushups"]


def test_a_list_of_ucf101_of_another_name_is_told_by_its_lines(tmp_path: Path) -> None:
    ucf101(tmp_path)
    put(tmp_path / "UCF-101" / "Archery" / "v_Archery_g08_c03.avi")
    train = tmp_path / "ucfTrainTestlist" / "trainlist01.txt"
    assert [(name, label) for name, (_, label) in read(tmp_path, train).items()] == [
        ("Archery/v_Archery_g08_c03.avi", "Archery")
    ]


@pytest.mark.parametrize("folder", ["hmdb51_org/{}", "videos", "."])
def test_hmdb51_takes_the_videos_for_testing(tmp_path: Path, folder: str) -> None:
    hmdb51(tmp_path)
    where = {}
    for label, name in (("brush_hair", "e_brush_hair_1.avi"), ("wave", "#1_wave_u_0.avi"), ("wave", "b_wave_1.avi")):
        where[name] = os.path.normpath(f"{folder.format(label)}/{name}")
        put(tmp_path / where[name])
    assert read(tmp_path) == {
        "brush_hair/e_brush_hair_1.avi": (where["e_brush_hair_1.avi"], "brush_hair"),
        "wave/#1_wave_u_0.avi": (where["#1_wave_u_0.avi"], "wave"),
    }
    assert read(tmp_path, split=2) == {"wave/b_wave_1.avi": (where["b_wave_1.avi"], "wave")}
    found = layouts.read(tmp_path)
    assert found.of == "hmdb51"
    assert answers(found, HMDB) == {"brush_hair/e_brush_hair_1.avi": "brush_hair", "wave/#1_wave_u_0.avi": "wave"}


def test_the_lists_of_hmdb51_may_lie_elsewhere(tmp_path: Path) -> None:
    lists = hmdb51(tmp_path / "lists")
    put(tmp_path / "data" / "wave" / "#1_wave_u_0.avi")
    assert "wave/#1_wave_u_0.avi" in read(tmp_path / "data", lists)


def test_one_list_of_hmdb51_is_no_list_of_paths_and_classes(tmp_path: Path) -> None:
    """The number behind a video is its use."""
    path = hmdb51(tmp_path) / "wave_test_split1.txt"
    put(tmp_path / "wave" / "#1_wave_u_0.avi")
    put(tmp_path / "wave" / "b_wave_1.avi")
    assert "folder" in refusal(tmp_path, path)


# --- lists of paths ------------------------------------------------------------------------------------------------


def test_lists_of_mit(tmp_path: Path) -> None:
    put(tmp_path / "val_videofolder.txt", "7 37 1", "100218 42 0")
    put(tmp_path / "category.txt", "Pulling Hand In", "Swiping Left")
    images(tmp_path / "rgb" / "7", "img_{:05d}.jpg")
    images(tmp_path / "rgb" / "100218", "img_{:05d}.jpg")
    assert read(tmp_path) == {"7": ("rgb/7", "Swiping Left"), "100218": ("rgb/100218", "Pulling Hand In")}
    found = layouts.read(tmp_path)
    assert [video.frames for video in found.videos] == [37, 42]
    assert (found.layout, found.of) == ("list", None)


def test_absolute_paths_in_a_list_are_taken_as_they_are(tmp_path: Path) -> None:
    frames = images(tmp_path / "disk" / "abseiling" / "Zx_9")
    path = put(tmp_path / "lists" / "val.txt", f"{frames} 300 0")
    (tmp_path / "data").mkdir()
    assert [video.path for video in layouts.read(tmp_path / "data", path).videos] == [frames]


@pytest.mark.parametrize(
    ("name", "line", "video", "expected"),
    [
        ("kinetics400_val_list_videos.txt", "a b/c (d) 1.mp4 3", "a b/c (d) 1.mp4", ("a b/c (d) 1.mp4", None, 3)),
        ("kinetics400_val_list_videos.txt", "7.webm\t3", "videos_val/7.webm", ("7.webm", None, 3)),
        ("sthv2_val_list_rawframes.txt", "100218 37 3", "rawframes/100218/img_00001.jpg", ("100218", 37, 3)),
        ("sthv2_val_list_rawframes.txt", "a b/c d 37 3", "rawframes/a b/c d/img_00001.jpg", ("a b/c d", 37, 3)),
        ("annotations.txt", "a,b.mp4,3", "a,b.mp4", ("a,b.mp4", None, 3)),
        ("annotations.txt", "abseiling/Zx_9 3", "val/abseiling/Zx_9.mp4", ("abseiling/Zx_9", None, 3)),
        ("annotations.txt", "./Zx_9 3", "Zx_9.mp4", ("./Zx_9", None, 3)),
        ("annotations.txt", "clip.v2 3", "clip.v2.mp4", ("clip.v2", None, 3)),
    ],
)
def test_lists_of_mmaction2(
    tmp_path: Path, name: str, line: str, video: str, expected: tuple[str, int | None, int]
) -> None:
    put(tmp_path / name, line)
    put(tmp_path / video)
    (listed,) = layouts.read(tmp_path).videos
    assert (listed.name, listed.frames, listed.label) == expected
    assert listed.path == (tmp_path / video).parent if "img_" in video else listed.path.samefile(tmp_path / video)


def test_a_path_that_ends_in_a_number_is_told_by_its_neighbours(tmp_path: Path) -> None:
    put(tmp_path / "annotations.txt", "clip 1 0", "other 1")
    for name in ("clip 1", "other"):
        images(tmp_path / name)
    assert read(tmp_path) == {"clip 1": ("clip 1", 0), "other": ("other", 1)}


def test_what_tsmzoo_writes_it_reads(tmp_path: Path) -> None:
    put(tmp_path / "videos" / "000 1.mp4")
    put(tmp_path / "videos" / "1.mp4")
    dataset.write(tmp_path, [("videos/000 1.mp4", 1), ("videos/1.mp4", 0)], ("left", "right"))
    assert read(tmp_path) == {
        "videos/000 1.mp4": ("videos/000 1.mp4", "right"),
        "videos/1.mp4": ("videos/1.mp4", "left"),
    }
    found = layouts.read(tmp_path)
    assert found.list_sha256 == hashlib.sha256((tmp_path / "annotations.txt").read_bytes()).hexdigest()
    assert (found.name, found.classes, found.repeated) == (tmp_path.name, ("left", "right"), 0)


def test_lists_from_other_editors(tmp_path: Path) -> None:
    put(tmp_path / "a.mp4")
    (tmp_path / "annotations.txt").write_bytes(b"\xef\xbb\xbfa.mp4 1\r\n\r\n")
    (tmp_path / "labels.txt").write_bytes(b"\xef\xbb\xbfleft\r\nright\r\n")
    assert read(tmp_path) == {"a.mp4": ("a.mp4", "right")}


def test_a_video_that_is_listed_again_counts_once(tmp_path: Path) -> None:
    put(tmp_path / "a.mp4")
    put(tmp_path / "annotations.txt", "a.mp4 1", "a.mp4 1", "b.mp4 0")
    found = layouts.read(tmp_path)
    assert ([video.name for video in found.videos], found.repeated) == (["a.mp4", "b.mp4"], 1)


# --- a folder a class ----------------------------------------------------------------------------------------------


def test_a_folder_a_class(tmp_path: Path) -> None:
    put(tmp_path / "wave" / "2.mp4")
    put(tmp_path / "wave" / "1.AVI")
    images(tmp_path / "clap" / "frames of 3")
    for stray in ("wave/notes.txt", "wave/.1.AVI", ".git/config", "README.md"):
        put(tmp_path / stray)
    assert read(tmp_path) == {
        "clap/frames of 3": ("clap/frames of 3", "clap"),
        "wave/1.AVI": ("wave/1.AVI", "wave"),
        "wave/2.mp4": ("wave/2.mp4", "wave"),
    }
    found = layouts.read(tmp_path)
    assert (found.layout, found.of, found.classes) == ("folders", None, ("clap", "wave"))


@pytest.mark.slow
def test_every_class_has_its_folder_however_many_there_are(tmp_path: Path) -> None:
    """Kinetics-700 has more classes than other folders are looked into."""
    for number in range(700):
        put(tmp_path / f"class {number:03d}" / "v.mp4")
    found = layouts.read(tmp_path)
    assert (len(found), len(found.classes)) == (700, 700)


@pytest.mark.parametrize("names", [("跑步", "跳跃"), ("прыжок", "бег"), ("c", "c++"), ("grade -1", "grade 1")])
def test_classes_that_differ_in_any_character_are_two(tmp_path: Path, names: tuple[str, str]) -> None:
    for name in names:
        put(tmp_path / name / "v.mp4")
    assert read(tmp_path) == {f"{name}/v.mp4": (f"{name}/v.mp4", name) for name in names}


def test_folders_of_splits_are_no_classes(tmp_path: Path) -> None:
    """Folders called as parts of the data are such, each with its folders of classes."""
    for split in ("train", "val"):
        for name in ("clap", "wave"):
            put(tmp_path / split / name / f"{split}.mp4")
    assert read(tmp_path / "val") == {
        "clap/val.mp4": ("clap/val.mp4", "clap"),
        "wave/val.mp4": ("wave/val.mp4", "wave"),
    }
    for part in ("train", "val"):
        assert read(tmp_path, part=part) == {
            f"{name}/{part}.mp4": (f"{part}/{name}/{part}.mp4", name) for name in ("clap", "wave")
        }
