"""Numbers at the end of a line, told apart by what lies on the disk; names in other Unicode forms; hostile lists."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from tsmzoo.data import layouts
from tsmzoo.data.encode import encode
from tsmzoo.errors import DataError


def put(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def record(path: Path, frames: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    encode(path, np.zeros((frames, 16, 16, 3), np.uint8), 8)
    return path


def images(folder: Path, count: int, *templates: str) -> Path:
    for template in templates or ("img_{:05d}.jpg",):
        for number in range(1, count + 1):
            put(folder / template.format(number))
    return folder


def read(folder: Path, *lines: str) -> list[tuple[str, int, int | None]]:
    found = layouts.read(folder, put(folder / "list.txt", *lines))
    return [(each.name, each.label, each.frames) for each in found.videos]


def refusal(folder: Path, *lines: str) -> str:
    with pytest.raises(DataError) as caught:
        read(folder, *lines)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Give videos of 5, 6 … frames."""
    for number in range(4):
        record(tmp_path / "videos" / f"{number}.mp4", 5 + number)
    return tmp_path


def test_frames_of_videos(clips: Path) -> None:
    lines = [f"videos/{number}.mp4 {5 + number} {number % 2}" for number in range(4)]
    assert read(clips, *lines) == [(f"videos/{number}.mp4", number % 2, 5 + number) for number in range(4)]
    bare = [f"videos/{number} {5 + number} {number % 2}" for number in range(4)]
    assert read(clips, *bare) == [(f"videos/{number}", number % 2, 5 + number) for number in range(4)]


@pytest.mark.parametrize("separator", [" ", "\t", ",", ", "])
@pytest.mark.parametrize("ending", [".mp4", ""])
def test_two_classes_on_every_line_are_no_frames(clips: Path, separator: str, ending: str) -> None:
    lines = [separator.join((f"videos/{number}{ending}", str(number), "12")) for number in range(4)]
    said = refusal(clips, *lines)
    assert f"line 1 says that videos/0{ending} has 0 frames, and it has 5" in said
    assert "mean average precision" in said


def test_a_count_that_is_not_that_of_its_video_is_named(clips: Path) -> None:
    lines = [f"videos/{number}.mp4 {5 + number} 0" for number in range(3)]
    assert "line 4 says that videos/3.mp4 has 30 frames, and it has 8" in refusal(clips, *lines, "videos/3.mp4 30 1")


@pytest.mark.parametrize("line", ["videos/1.mp4 1 5", "videos/1 1 5", "videos/1.mp4,1,5"])
def test_two_classes_on_some_lines(clips: Path, line: str) -> None:
    said = refusal(clips, "videos/0.mp4 3", line)
    assert "line 2 has several classes of one video (1, 5)" in said
    assert "mean average precision" in said


@pytest.mark.parametrize(
    "line",
    [
        *("videos/1.mp4 1 5 7", "videos/1 1 5 7", "videos/1.mp4,1,5,7", "videos/1.mp4 1;5", "videos/1.mp4 1|5"),
        *("videos/1.mp4 1,5", f"videos/1.mp4 {' '.join(map(str, range(80)))}"),
    ],
)
def test_several_classes(clips: Path, line: str) -> None:
    said = refusal(clips, line)
    assert "mean average precision" in said
    assert "line 1" in said


def test_a_video_that_is_listed_with_each_of_its_classes(clips: Path) -> None:
    assert "mean average precision" in refusal(clips, "videos/1.mp4 0", "videos/1.mp4 3")


@pytest.mark.parametrize(
    "other", ["./videos/1.mp4", "videos//1.mp4", "videos/../videos/1.mp4", "videos/1", "videos/1.MP4", "ABSOLUTE"]
)
def test_a_video_is_one_however_its_path_is_written(clips: Path, other: str) -> None:
    other = other.replace("ABSOLUTE", str(clips / "videos" / "1.mp4"))
    said = refusal(clips, "videos/1.mp4 0", f"{other} 3")
    assert f"lists videos/1.mp4 and again as {other}, twice" in said
    assert "mean average precision" in said
    assert read(clips, "videos/1.mp4 3", f"{other} 3", "videos/2.mp4 0") == [
        ("videos/1.mp4", 3, None),
        ("videos/2.mp4", 0, None),
    ]


def test_a_table_of_charades_names_the_measure(clips: Path) -> None:
    path = put(clips / "Charades_v1_test.csv", "id,subject,actions,length", "46GP8,HR43,c092 11.90 21.20;c147 0 12,25")
    with pytest.raises(DataError, match=r"Charades_v1_test\.csv: has several classes a video.*mean average precision"):
        layouts.read(clips, path)


@pytest.mark.parametrize(
    ("templates", "listed"),
    [
        ((), 40),
        ((), 39),  # as many as there is flow
        (("flow_x_{:05d}.jpg", "flow_y_{:05d}.jpg"), 40),
        (("x_{:05d}.jpg", "y_{:05d}.jpg"), 80),  # MIT's
        (("img_{:05d}.jpg", "flow_x_{:05d}.jpg", "flow_y_{:05d}.jpg"), 40),
        ((), 60),  # images are missing, which is told when they are read
    ],
)
def test_frames_of_folders(tmp_path: Path, templates: tuple[str, ...], listed: int) -> None:
    for name in ("7", "8"):
        images(tmp_path / "frames" / name, 40, *templates)
    assert read(tmp_path, f"7 {listed} 3", f"8 {listed} 4") == [("7", 3, listed), ("8", 4, listed)]


def test_two_classes_of_a_folder_are_no_frames(tmp_path: Path) -> None:
    images(tmp_path / "frames" / "7", 40)
    assert "line 1 says that 7 has 5 frames, and it has 40" in refusal(tmp_path, "7 5 3")


@pytest.mark.parametrize(
    "templates",
    [
        ("img_{:05d}_96x96.jpg",),
        ("{:04d}_of_0040.jpg",),
        ("f_{:04d}_t0.5.png",),
        ("img_{:05d}_96x96.jpg", "flow_x_{:05d}_96x96.jpg", "flow_y_{:05d}_96x96.jpg"),
    ],
)
def test_images_are_counted_by_the_number_that_orders_them(tmp_path: Path, templates: tuple[str, ...]) -> None:
    images(tmp_path / "frames" / "v1", 40, *templates)
    assert "line 1 says that v1 has 3 frames, and it has 40" in refusal(tmp_path, "v1 3 7")
    assert read(tmp_path, "v1 40 7") == [("v1", 7, 40)]


def test_images_are_counted_as_they_are_chosen(tmp_path: Path) -> None:
    images(images(tmp_path / "v1", 40, "rgb_{:05d}.png"), 12, "depth_{:05d}.png")
    path = put(tmp_path / "list.txt", "v1 12 7")
    with pytest.raises(DataError, match="line 1 says that v1 has 12 frames, and it has 40"):
        layouts.read(tmp_path, path, images="rgb_{:05d}.png")
    (listed,) = layouts.read(tmp_path, path, images="depth_{:05d}.png").videos
    assert (listed.label, listed.frames, listed.images) == (7, 12, "depth_{:05d}.png")


def test_numbers_at_the_end_of_paths(tmp_path: Path) -> None:
    for name in ("clip 1", "clip 2", "take 3 4"):
        images(tmp_path / name, 30)
    assert read(tmp_path, "clip 1 0", "clip 2 1", "take 3 4 1") == [
        ("clip 1", 0, None),
        ("clip 2", 1, None),
        ("take 3 4", 1, None),
    ]
    assert read(tmp_path, "clip 1 30 0", "take 3 4 30 1") == [("clip 1", 0, 30), ("take 3 4", 1, 30)]


@pytest.mark.parametrize(("written", "stored"), [("NFC", "NFD"), ("NFD", "NFC"), ("NFC", "NFC")])
def test_names_are_found_in_any_form_of_unicode(tmp_path: Path, written: str, stored: str) -> None:
    def of(form: str, name: str) -> str:
        return unicodedata.normalize(form, name)

    for name in ("élan/vidéo.mp4", "élan/clé/ü.MP4", "plain/ñ.webm"):
        put(tmp_path / "vidéos" / of(stored, name))
    put(tmp_path / "labels.txt", of(stored, "Été"), "hiver")
    lines = ("élan/vidéo.mp4 0", "élan/clé/ü.mp4 1", "plain/ñ 1")
    found = layouts.read(tmp_path, put(tmp_path / "list.txt", *(of(written, line) for line in lines)))
    assert all(each.path.is_file() for each in found.videos)
    assert found.classes == (of("NFC", "Été"), "hiver")
    assert layouts.matcher([of(stored, "Été")])(of(written, "Été")) == 0


@pytest.mark.parametrize("there", ["a.MP4", "a.m4v", "a.mts"])
def test_a_name_without_its_ending_is_a_video_of_any(tmp_path: Path, there: str) -> None:
    put(tmp_path / "x" / there)
    (listed,) = layouts.read(tmp_path, put(tmp_path / "list.txt", "a 0")).videos
    assert listed.path == tmp_path / "x" / there


# --- hostile lists -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    ["," * 60_000, ", " * 30_000 + "x", "a" + " 1" * 30_000, "1," * 30_000, "\t" * 60_000 + ".", "a" * 60_000],
    ids=["commas", "commas and spaces", "ones", "ones and commas", "tabs", "letters"],
)
def test_no_line_takes_long(clips: Path, line: str) -> None:
    assert len(refusal(clips, "videos/0.mp4 0", line)) < 1000


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"videos/0.mp4 0\n" + b"a" * 2**20, "line 2 has 1048576 characters"),
        (b"videos/0.mp4 0\nvideos/\0.mp4 1\n", "is not text"),
        (b"videos/0.mp4 0\n\xff\xfe 1\n", "is not text"),
        ("videos/0.mp4 0\n".encode("utf-16"), "is not text"),
        (b"videos/0.mp4 99999999999999999999\n", "an index has 7 digits at most"),
        (b"videos/0.mp4 " + b"9" * 5000, "an index has 7 digits at most"),
        (b"videos/0.mp4 0 x\n", "must be a path and the index"),
        (b"videos/0.mp4 0,\n", "must be a path and the index"),
        (b"3\n", "must be a path and the index"),
    ],
)
def test_odd_lists_are_one_line(clips: Path, content: bytes, words: str) -> None:
    path = clips / "odd.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"^[^\n]{0,600}$") as caught:
        layouts.read(clips, path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


KINETICS = "label,youtube_id,time_start,time_end,split"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("val.csv", f"{KINETICS}\nx,{'y' * 200_000},0,10,v\n"),
        ("val.csv", f'{KINETICS}\n"x,' + "y" * 200_000),
        ("val.csv", f"{KINETICS}\nx,y,inf,10,v\n"),
        ("val.csv", f"{KINETICS}\nx,y,nan,10,v\n"),
        ("val.csv", "youtube_id,time_start,time_end,label\ny,0,10\n"),
        ("validation.json", "[" * 100_000),
        ("validation.json", '[{"id": ' + "9" * 5000 + "}]"),
        ("validation.json", "3"),
        ("validation.json", "null"),
        ("testlist01.txt", "Clapping\n"),
    ],
)
def test_odd_official_lists_are_one_line(tmp_path: Path, name: str, content: str) -> None:
    put(tmp_path / "labels.json", '{"x": "0"}')
    put(tmp_path / "classInd.txt", "1 Nodding")
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=r"^[^\n]{0,800}$") as caught:
        layouts.read(tmp_path)
    assert name in str(caught.value)


@pytest.mark.parametrize("letter", ["\\ud800", "\\n", "\\u001b[2J", "\\u0085"])
@pytest.mark.parametrize("where", ["id", "template", "labels"])
def test_what_cannot_be_written_down_is_refused(tmp_path: Path, letter: str, where: str) -> None:
    id_, template, label = (f"a{letter}" if where == each else "a" for each in ("id", "template", "labels"))
    put(tmp_path / "validation.json", f'[{{"id": "{id_}", "template": "{template}"}}]')
    put(tmp_path / "labels.json", f'{{"a": "0", "b{label}": "1"}}')
    put(tmp_path / "a.mp4")
    with pytest.raises(DataError, match=r"^[^\n\ud800\x1b\x85]*$") as caught:
        layouts.read(tmp_path)
    assert f"{tmp_path / 'validation.json'}: " in str(caught.value)
    assert "cannot be written down; rename it" in str(caught.value)


@pytest.mark.parametrize("name", ["annotations.txt", "labels.txt", "val.csv", "labels.json", "classInd.txt"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "zeros", "nowhere"])
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, name: str, kind: str) -> None:
    """Nor passed by, as if it were not there."""
    for beside in {
        "labels.txt": ["annotations.txt"],
        "labels.json": ["validation.json"],
        "classInd.txt": ["testlist01.txt"],
    }.get(name, []):
        put(tmp_path / beside, "[]" if beside.endswith("json") else "a.mp4 0")
    put(tmp_path / "a.mp4")
    path = tmp_path / name
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if kind == "zeros" else "nowhere")
    with pytest.raises(DataError, match=r"^[^\n]*$") as caught:
        layouts.read(tmp_path)
    assert str(path) in str(caught.value)
    assert "cannot be read" in str(caught.value)


@pytest.mark.parametrize("asked", ["pipe", "zeros"])
def test_a_list_that_is_named_and_no_file(clips: Path, asked: str) -> None:
    path = clips / "odd.txt"
    os.mkfifo(path) if asked == "pipe" else path.symlink_to("/dev/zero")
    with pytest.raises(DataError, match="no regular file"):
        layouts.read(clips, path)


@pytest.mark.parametrize("line", ["v9 123456789123 1", "videos/9.mp4 123456789123 1"])
def test_a_count_that_no_video_has_is_named(tmp_path: Path, line: str) -> None:
    record(tmp_path / "videos" / "0.mp4", 5)
    for number in range(3):
        images(tmp_path / f"v{number}", 5)
    lines = [*(f"v{number} 5 {number % 2}" for number in range(3)), "videos/0.mp4 5 1", line]
    assert "line 5" in refusal(tmp_path, *lines)


def test_a_name_that_labels_have_twice_is_told(clips: Path) -> None:
    put(clips / "labels.txt", "up", "down", "up")
    assert "labels.txt: names 'up' again" in refusal(clips, "videos/0.mp4 0", "videos/1.mp4 1")
