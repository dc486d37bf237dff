"""Pictures of listed videos: which images of a folder, in which order, and what flow is read from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tsmzoo.data import decode, motion, select
from tsmzoo.data.dataset import Video
from tsmzoo.errors import VideoError
from tsmzoo.typing import Array

#: Height and width of the images.
SHAPE = (6, 8)


def save(path: Path, *channels: int) -> Path:
    """Write an image of one colour, or with one number a grey one; PNG keeps the values, JPEG all but."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.full((*SHAPE, len(channels)), channels, np.uint8)
    Image.fromarray(values.squeeze()).save(path, quality=100)
    return path


def rgb(folder: Path, template: str = "img_{:05d}.jpg", count: int = 5) -> Path:
    """Write images whose red is ten times their number."""
    for number in range(1, count + 1):
        save(folder / template.format(number), 10 * number, 50, 200)
    return folder


def flow(folder: Path, template: str, count: int = 4) -> Path:
    """Write x and y of flow: ten times the number, and that and a hundred."""
    for number in range(1, count + 1):
        save(folder / template.format("x", number), 10 * number)
        save(folder / template.format("y", number), 10 * number + 100)
    return folder


def listed(path: Path, frames: int | None = None) -> Video:
    return Video(path.name, path, 0, frames)


def every(total: int) -> range:
    return range(total)


def values(pictures: dict[int, Array]) -> list[list[int]]:
    """Return the channels of each picture, which is of one colour, in order."""
    assert all(picture.dtype == np.uint8 and picture.shape[:2] == SHAPE for picture in pictures.values())
    return [np.median(pictures[index], (0, 1)).astype(int).tolist() for index in sorted(pictures)]


def refusal(of: Video, choose: Callable[[int], range] = every, **options: bool) -> str:
    """Return the one line that is said of a video that gives no pictures."""
    with pytest.raises(VideoError) as caught:
        select.pick(of, choose, **options)
    said = str(caught.value)
    assert "\n" not in said
    assert said.startswith(f"{of.path}: ")
    return said.removeprefix(f"{of.path}: ")


# --- RGB -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("template", ["{:05d}.jpg", "img_{:05d}.jpg", "image_{:06d}.PNG", "{}.jpeg", "a 1 b-{:d}.webp"])
@pytest.mark.parametrize("frames", [None, 5])
def test_images_of_a_folder(tmp_path: Path, template: str, frames: int | None) -> None:
    total, pictures = select.pick(listed(rgb(tmp_path, template), frames), lambda total: [0, total - 1])
    assert (total, sorted(pictures)) == (5, [0, 4])
    np.testing.assert_allclose(values(pictures), [[10, 50, 200], [50, 50, 200]], atol=3)


def test_numbers_order_images_and_names_do_not(tmp_path: Path) -> None:
    for number in (9, 10, 100, 11):
        save(tmp_path / f"frame{number}.png", number, 0, 0)
    _, pictures = select.pick(listed(tmp_path), every)
    assert [red for red, *_ in values(pictures)] == [9, 10, 11, 100]


def test_images_may_begin_at_any_number_and_lack_some(tmp_path: Path) -> None:
    for number in (0, 2, 7):
        save(tmp_path / f"{number:05d}.png", number, 0, 0)
    total, pictures = select.pick(listed(tmp_path), every)
    assert total == 3
    assert [red for red, *_ in values(pictures)] == [0, 2, 7]


def test_other_files_in_the_folder_are_no_images(tmp_path: Path) -> None:
    rgb(tmp_path)
    for name in (
        "thumbs.db",
        "audio_00001.wav",
        "cover.jpg",
        "img_00001.jpg.part",
        "._img_00001.jpg",
        ".img_00009.jpg",
    ):
        (tmp_path / name).write_bytes(b"x")
    total, pictures = select.pick(listed(tmp_path), every)
    assert (total, len(pictures)) == (5, 5)


def test_flow_beside_the_images_is_not_of_them(tmp_path: Path) -> None:
    """mmaction2 keeps both in a folder."""
    flow(rgb(tmp_path), "flow_{}_{:05d}.jpg", 4)
    assert select.pick(listed(tmp_path), every)[0] == 5
    assert select.pick(listed(tmp_path), every, flow=True)[0] == 4


def test_a_list_that_counts_fewer_images_leaves_the_rest(tmp_path: Path) -> None:
    total, pictures = select.pick(listed(rgb(tmp_path), 3), every)
    assert (total, sorted(pictures)) == (3, [0, 1, 2])


def test_only_images_that_are_chosen_are_opened(tmp_path: Path) -> None:
    (rgb(tmp_path) / "img_00003.jpg").write_bytes(b"")
    assert sorted(select.pick(listed(tmp_path), lambda _: [0, 0, 4])[1]) == [0, 4]


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_images_of_any_mode_are_rgb(tmp_path: Path, mode: str) -> None:
    Image.new("RGB", SHAPE[::-1], (255, 255, 255)).convert(mode).save(
        tmp_path / ("1.jpg" if mode == "CMYK" else "1.png")
    )
    assert values(select.pick(listed(tmp_path), every)[1]) == [[255, 255, 255]]


# --- flow ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("template", ["flow_{}_{:05d}.jpg", "{}_{:05d}.jpg", "000012-{}_{:05d}.jpg", "{}{:05d}.png"])
@pytest.mark.parametrize("frames", [None, 4, 8])
def test_flow_is_x_and_y(tmp_path: Path, template: str, frames: int | None) -> None:
    """MIT's lists of Something-Something V1 count the images of both components."""
    total, pictures = select.pick(listed(flow(tmp_path, template), frames), every, flow=True)
    assert total == 4
    np.testing.assert_allclose(values(pictures), [[10 * n, 10 * n + 100] for n in (1, 2, 3, 4)], atol=3)


def test_flow_of_u_and_v(tmp_path: Path) -> None:
    for number in (9, 10):
        save(tmp_path / f"u_{number}.png", number)
        save(tmp_path / f"v_{number}.png", 2 * number)
    assert values(select.pick(listed(tmp_path), every, flow=True)[1]) == [[9, 18], [10, 20]]


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_flow_in_red_and_green_of_one_image(tmp_path: Path, ending: str) -> None:
    """As MIT lays out Something-Something V2."""
    for number in (1, 2, 3):
        save(tmp_path / f"{number:06d}.{ending}", 100 + number, 150 + number, 128)
    total, pictures = select.pick(listed(tmp_path, 3), every, flow=True)
    assert (total, {picture.shape for picture in pictures.values()}) == (3, {(*SHAPE, 2)})
    np.testing.assert_allclose(values(pictures), [[100 + n, 150 + n] for n in (1, 2, 3)], atol=3)


def test_flow_fewer_than_listed_is_not_taken_for_half(tmp_path: Path) -> None:
    folder = flow(tmp_path, "flow_{}_{:05d}.jpg")
    for frames in (5, 7, 9):
        assert refusal(listed(folder, frames), flow=True) == f"has 4 flow images, its list says {frames}"


def test_an_image_of_flow_without_the_other_component_is_left_out(tmp_path: Path) -> None:
    (flow(tmp_path, "flow_{}_{:05d}.jpg") / "flow_y_00002.jpg").unlink()
    total, pictures = select.pick(listed(tmp_path), every, flow=True)
    assert total == 3
    np.testing.assert_allclose(values(pictures), [[10, 110], [30, 130], [40, 140]], atol=3)


# --- videos that give no pictures ----------------------------------------------------------------------------------


def test_fewer_images_than_listed(tmp_path: Path) -> None:
    assert refusal(listed(rgb(tmp_path), 6)) == "has 5 images, its list says 6"
    assert refusal(listed(tmp_path, 0)) == "has 5 images, its list says 0"


@pytest.mark.parametrize("is_flow", [False, True])
def test_a_folder_without_images(tmp_path: Path, is_flow: bool) -> None:
    """No list is blamed that says nothing of the number."""
    said = refusal(listed(tmp_path), flow=is_flow)
    assert "images" in said
    assert "list" not in said


@pytest.mark.parametrize("is_flow", [False, True])
def test_a_video_that_is_missing(tmp_path: Path, is_flow: bool) -> None:
    assert refusal(listed(tmp_path / "v.mp4"), flow=is_flow) == "is missing"


@pytest.mark.parametrize("is_flow", [False, True])
@pytest.mark.parametrize(
    ("name", "why"), [("v" * 300, "File name too long"), ("loop", "Too many levels of symbolic links")]
)
def test_a_path_that_the_system_refuses(tmp_path: Path, is_flow: bool, name: str, why: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    said = refusal(listed(tmp_path / name), flow=is_flow)
    assert said == f"cannot be read ({why})"


def test_a_video_file_is_no_flow(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_bytes(b"")
    assert "is no folder of flow images; extract them, or choose an RGB model" in refusal(
        listed(tmp_path / "v.mp4"), flow=True
    )


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "bmp"])
@pytest.mark.parametrize("keep", [0, 0.1, 0.5, 0.9])
def test_a_damaged_image(tmp_path: Path, ending: str, keep: float) -> None:
    """Cut off in the middle of a download."""
    path = tmp_path / f"1.{ending}"
    Image.fromarray(np.random.RandomState(0).randint(0, 256, (32, 32, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    assert "cannot be decoded" in refusal(listed(tmp_path))


def test_a_png_whose_header_is_damaged(tmp_path: Path) -> None:
    """Pillow raises ValueError of a header too short."""
    path = save(tmp_path / "1.png", 1, 2, 3)
    data = bytearray(path.read_bytes())
    data[11] = 4  # the length of the header, else 13
    path.write_bytes(data)
    assert "cannot be decoded" in refusal(listed(tmp_path))


def test_flow_whose_components_are_of_two_sizes(tmp_path: Path) -> None:
    save(tmp_path / "x_1.png", 1)
    Image.new("L", (3, 3)).save(tmp_path / "y_1.png")
    assert "image" in refusal(listed(tmp_path), flow=True)


# --- video files ---------------------------------------------------------------------------------------------------


def test_a_video_file_gives_the_frames_that_decoding_gives(tmp_path: Path) -> None:
    motion.write(tmp_path / "clips", 14, 0)
    path = min((tmp_path / "clips").rglob("*.mp4"))
    frames = [np.asarray(image) for _, image in decode.decode(path)]
    total, pictures = select.pick(listed(path, 10**6), lambda total: [0, total // 2])
    assert total == len(frames)
    for index, picture in pictures.items():
        np.testing.assert_array_equal(picture, frames[index])


def test_a_file_that_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    path.write_bytes(b"not a video")
    assert refusal(listed(path))
