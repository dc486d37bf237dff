"""Datasets as their publishers lay them out: which videos are read, of which classes, and what is said of wrong ones.

The videos are empty files, for a layout never opens them.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest
from torch import nn

from tsmzoo import registry
from tsmzoo.artifact.contract import Contract
from tsmzoo.data import dataset, layouts
from tsmzoo.data.dataset import Dataset
from tsmzoo.errors import DataError
from tsmzoo.evaluation.evaluate import fitted
from tsmzoo.inference.describe import describe
from tsmzoo.registry import paths
from tsmzoo.weights.load import Network

ZOO = registry.load()
V2, V1, JESTER = "tsm_r50_sthv2_8f_mit", "tsm_r50_sthv1_8f_mit", "tsm_r50_jester_8f_mm0"
K400, UCF, HMDB = "tsm_r50_k400_8f_mit", "tsn_r50_ucf101_3seg_mm0", "tsn_r50_hmdb51_8seg_from_in_mm0"
MOMENTS, SEVERAL, MOTION = "tsn_r50_moments_6seg_mm0", "tsn_r101_mmoments_5seg_mm0", "tsm_mbv2_motion"
KINETICS = "label,youtube_id,time_start,time_end,split"


def put(path: Path, *lines: str) -> Path:
    """Write a list, or with no lines the empty file that stands for a video."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def document(path: Path, content: object) -> Path:
    return put(path, json.dumps(content))


def images(folder: Path, template: str = "{:05d}.jpg", count: int = 3) -> Path:
    """Make a folder of numbered images."""
    for number in range(1, count + 1):
        put(folder / template.format(number))
    return folder


def contract(model: str) -> Contract:
    """Return the contract of a model; nothing here needs its network, nor the states of an online one."""
    entry = msgspec.structs.replace(ZOO.find(model), mode="offline")
    return describe(ZOO, Network(entry, nn.Identity(), "random"))


def names_of(model: str) -> tuple[str, ...]:
    names = ZOO.label_names(ZOO.find(model))
    assert names is not None
    return names


def read(*arguments: object, **options: object) -> dict[str, tuple[str, int | str]]:
    """Return where each video lies, from the folder, and its class: the name where there are any."""
    found = layouts.read(*arguments, **options)
    return {
        video.name: (
            os.path.relpath(video.path, arguments[0]),
            video.label if found.classes is None else found.classes[video.label],
        )
        for video in found.videos
    }


def refusal(*arguments: object, **options: object) -> str:
    """Return the one line that is said of data that cannot be read."""
    with pytest.raises(DataError) as caught:
        layouts.read(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def answers(found: Dataset, model: str) -> dict[str, str]:
    """Return by video the class that `model` must answer to be right."""
    ours = contract(model)
    return {video.name: ours.labels[video.label] for video in fitted(ZOO, found, ours).videos}


# --- Something-Something and Jester --------------------------------------------------------------------------------

#: Two templates as the publisher writes them, with the names that they are of.
TEMPLATES = {
    "4": ("Holding [something] next to [something]", "Holding something next to something"),
    "17": ("Turning [something] upside down", "Turning something upside down"),
}


def something_v2(root: Path, validation: str, labels: str) -> None:
    items = [{"id": id_, "label": "holding a cup", "template": said} for id_, (said, _) in TEMPLATES.items()]
    document(root / validation, items)
    # As published: the indices are strings, and not in the order of the file.
    document(root / labels, {name: str(index) for index, name in reversed(list(enumerate(names_of(V2))))})


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


# --- Kinetics ------------------------------------------------------------------------------------------------------


def kinetics(path: Path, *rows: tuple[str, str, int, int]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([KINETICS.split(","), *([*row, "validate"] for row in rows)])
    return path


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


# --- UCF101 and HMDB51 ---------------------------------------------------------------------------------------------


def ucf101(root: Path) -> None:
    lists = root / "ucfTrainTestlist"
    # The official numbers begin at 1; the names are in another order than the alphabet's here.
    put(lists / "classInd.txt", "1 HandstandPushups", "2 Archery")
    put(lists / "testlist01.txt", "Archery/v_Archery_g01_c01.avi", "HandstandPushups/v_HandStandPushups_g01_c01.avi")
    put(lists / "testlist02.txt", "Archery/v_Archery_g08_c03.avi")
    put(lists / "trainlist01.txt", "Archery/v_Archery_g08_c03.avi 2")


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


def hmdb51(root: Path) -> Path:
    lists = root / "testTrainMulti_7030_splits"
    put(lists / "wave_test_split1.txt", "#1_wave_u_0.avi 2 ", "b_wave_1.avi 1 ", "c_wave_2.avi 0 ")
    put(lists / "brush_hair_test_split1.txt", "d_brush_hair_0.avi 0 ", "e_brush_hair_1.avi 2 ")
    put(lists / "wave_test_split2.txt", "b_wave_1.avi 2 ")
    put(lists / "brush_hair_test_split2.txt", "e_brush_hair_1.avi 1 ")
    return lists


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


# --- data and models -----------------------------------------------------------------------------------------------


def listed(folder: Path, labels: Iterable[int], classes: Iterable[str] = ()) -> Dataset:
    """Return videos of a list in `folder`, with names of classes beside it where there are any."""
    lines = [f"{number}.mp4 {label}" for number, label in enumerate(labels)]
    put(folder / "annotations.txt", *lines)
    put(folder / "0.mp4")
    if names := list(classes):
        put(folder / "labels.txt", *names)
    return layouts.read(folder)


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
