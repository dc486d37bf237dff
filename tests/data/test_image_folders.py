"""Folders of images as people have them: one sequence is found, or asked for, and never mixed with another."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from tsmzoo import cli, registry
from tsmzoo.data import images, layouts, motion, select
from tsmzoo.data.dataset import IMAGE_ENDINGS, NUMBERED, Video
from tsmzoo.errors import ExportError, VideoError
from tsmzoo.exporting import calibration
from tsmzoo.live import source


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def put(folder: Path, *names: str, size: tuple[int, int] = (8, 6)) -> Path:
    """Write small images; what they show is not asked."""
    folder.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    Image.new("RGB", size, (9, 9, 9)).save(content, "PNG")
    for name in names:
        (folder / name).write_bytes(content.getvalue())
    return folder


def names(folder: Path, template: str | None = None, *, flow: bool = False) -> list[str]:
    return [" ".join(path.name for path in paths) for paths in images.sequence(folder, template, flow=flow)]


def refusal(folder: Path, template: str | None = None, *, flow: bool = False) -> str:
    with pytest.raises(VideoError) as caught:
        images.sequence(folder, template, flow=flow)
    said = str(caught.value)
    assert "\n" not in said
    assert said.startswith(f"{folder}: ")
    return said


def numbered(template: str, count: int = 3, first: int = 1) -> list[str]:
    return [template.format(number) for number in range(first, first + count)]


# --- which are of the sequence ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wanted",
    [
        pytest.param(numbered("img_{:05d}.jpg"), id="padded"),
        pytest.param(numbered("{}.png", 12, 0), id="not padded, from 0"),
        pytest.param(["f_3.png", "f_10.png", "f_200.png"], id="with gaps"),
        pytest.param(numbered("IMG_{:04d}.JPG"), id="capitals"),
        pytest.param(["Img_1.jpg", "IMG_2.JPG", "img_3.jpeg"], id="capitals and endings mixed"),
        pytest.param(numbered("img_{:05d}_96x96.jpg"), id="size behind"),
        pytest.param(["img_00001_96x96.jpg"], id="one, size behind"),
        pytest.param(numbered("v_007_frame_{:03d}.jpg", 12), id="another number in front"),
        pytest.param(numbered("{:04d}_of_0300.jpg"), id="another behind"),
        pytest.param(["f_0001_t0.0.png", "f_0002_t0.5.png", "f_0003_t1.0.png", "f_0004_t1.5.png"], id="time behind"),
        pytest.param(["1305031102.975304.png", "1305031103.011341.png", "1305031103.043227.png"], id="seconds"),
        pytest.param(["part1_0001.png", "part1_0002.png", "part2_0003.png", "part2_0004.png"], id="parts"),
        pytest.param(["a.jpg", "b.jpg", "c.jpg"], id="no numbers"),
        pytest.param(numbered("v_{:05d}.jpg"), id="v that is no flow"),
    ],
)
def test_a_sequence_is_found_in_order(wanted: list[str], tmp_path: Path) -> None:
    put(tmp_path, *reversed(wanted))
    for name in (".hidden_00001.jpg", "._img_00001.jpg", "Thumbs.db", "notes.txt", "00001.txt", "00002.wav"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "img_00077.jpg").mkdir()
    assert names(tmp_path) == wanted
    assert [frame.image().size for frame in source.open_source(str(tmp_path)).frames()] == [(8, 6)] * len(wanted)
    assert select.pick(Video("v", tmp_path, 0), lambda total: [total - 1])[0] == len(wanted)


def test_a_cover_is_of_no_sequence(tmp_path: Path) -> None:
    wanted = numbered("img_{:05d}.jpg")
    assert names(put(tmp_path, *wanted, "cover.jpg", "poster_2.jpg")) == wanted


@pytest.mark.parametrize("other", ["notitle.jpg", "best_2.jpg", "Thumb.jpg", "poster_9.jpg", "thumbnail-1x.jpg"])
def test_one_image_beside_a_sequence_is_of_no_sequence(other: str, tmp_path: Path) -> None:
    wanted = numbered("img_{:05d}.jpg")
    assert names(put(tmp_path, *wanted, other, "cover.jpg")) == wanted


@pytest.mark.parametrize(
    "there",
    [
        ["000_wa.jpg", "001_wb.jpg", "002_wc.jpg", "003_run.jpg", "004_run.jpg"],
        [*numbered("{:05d}.jpg"), "00004_key.jpg", *numbered("{:05d}.jpg", first=5)],
        [*numbered("{:05d}.jpg"), "00004_end.jpg"],
        ["00000_start.jpg", *numbered("{:05d}.jpg")],
        ["alpha.jpg", "beta.jpg", "gamma.jpg", "x1.jpg", "x2.jpg"],
        ["intro.jpg", "outro.jpg", *numbered("x{}.jpg")],
    ],
    ids=["text of each", "in a gap", "behind", "in front", "most have no number", "two have no number"],
)
def test_images_that_may_be_of_a_sequence_are_not_passed_over(there: list[str], tmp_path: Path) -> None:
    error = refusal(put(tmp_path, *there))
    assert "others that may be of it" in error
    assert "choose with --images, '*' takes all by name" in error
    assert names(tmp_path, "*") == there


@pytest.mark.parametrize("component", ["flow_{}_{:05d}.jpg", "{}_{:05d}.jpg", "flow{}_{:05d}.png", "{:05d}_{}.jpg"])
def test_flow_beside_images_is_for_models_of_flow(component: str, tmp_path: Path) -> None:
    def named(part: str, number: int) -> str:
        return component.format(number, part) if component.startswith("{:05d}") else component.format(part, number)

    rgb = numbered("img_{:05d}.jpg", 4)
    pairs = [(named("x", number), named("y", number)) for number in (1, 2, 3)]
    put(tmp_path, *rgb, *(name for pair in pairs for name in pair))
    assert names(tmp_path) == rgb
    assert names(tmp_path, flow=True) == [" ".join(pair) for pair in pairs]


def test_flow_alone_is_never_fed_to_an_rgb_model(tmp_path: Path) -> None:
    flow = put(tmp_path / "xy", *numbered("flow_x_{:05d}.jpg"), *numbered("flow_y_{:05d}.jpg"))
    assert "holds no images but of optical flow" in refusal(flow)
    one = put(tmp_path / "one", *numbered("flow_i_{:05d}.jpg"))
    assert "holds no images but of optical flow" in refusal(one)
    assert names(one, flow=True) == numbered("flow_i_{:05d}.jpg")
    assert "holds no flow images" in refusal(put(tmp_path / "rgb", *numbered("img_{:05d}.jpg")), flow=True)


@pytest.mark.parametrize(
    ("there", "said"),
    [
        ([*numbered("rgb_{:05d}.png"), *numbered("depth_{:05d}.png")], ("depth_{:05d}.png", "rgb_{:05d}.png")),
        ([*numbered("cam1_{:05d}.png"), *numbered("cam2_{:05d}.png")], ("cam1_{:05d}.png", "cam2_{:05d}.png")),
        ([*numbered("{}_l.png"), *numbered("{}_r.png")], ("{}_l.png", "{}_r.png")),
        (
            [*numbered("img_{:05d}_96x96.jpg"), *numbered("img_{:05d}_192x192.jpg")],
            ("img_{:05d}_192x192.jpg", "img_{:05d}_96x96.jpg"),
        ),
        ([*numbered("f_{:03d}.jpg"), *numbered("f_{:03d}.png")], ("f_{:03d}.jpg", "f_{:03d}.png")),
        ([*numbered("f_{:03d}.jpg"), *numbered("f_{}.jpg")], ("f_{:03d}.jpg", "f_{}.jpg")),
    ],
)
def test_several_sequences_are_refused_and_named(there: list[str], said: tuple[str, str], tmp_path: Path) -> None:
    put(tmp_path, *there)
    error = refusal(tmp_path)
    assert "several" in error
    assert f"there is {', '.join(said)}: choose with --images" in error
    for template in said:
        chosen = names(tmp_path, template)
        assert len(chosen) == 3
        assert set(chosen) <= set(there)


@pytest.mark.parametrize(
    ("template", "wanted"),
    [
        ("rgb_{:05d}.png", numbered("rgb_{:05d}.png")),
        ("rgb_%05d.png", numbered("rgb_{:05d}.png")),
        ("rgb_{}.png", numbered("rgb_{:05d}.png")),
        ("depth_*.png", numbered("depth_{:05d}.png")),
        ("*_00002.png", ["depth_00002.png", "rgb_00002.png"]),
        ("*", [*numbered("depth_{:05d}.png"), *numbered("rgb_{:05d}.png")]),
    ],
)
def test_a_template_chooses(template: str, wanted: list[str], tmp_path: Path) -> None:
    put(tmp_path, *numbered("rgb_{:05d}.png"), *numbered("depth_{:05d}.png"))
    assert names(tmp_path, template) == wanted


def test_a_template_that_fits_nothing_says_what_is_there(tmp_path: Path) -> None:
    put(tmp_path, *numbered("rgb_{:05d}.png"), *numbered("d.({}.png"))
    assert "no image named like img_{:05d}.jpg; there is d.({}.png, rgb_{:05d}.png" in refusal(
        tmp_path, "img_{:05d}.jpg"
    )
    assert names(tmp_path, "d.({}.png") == numbered("d.({}.png")


@pytest.mark.parametrize(
    ("template", "fits"),
    [
        ("*1*1*1*1*1*1*1*x.jpg", False),
        ("{}" * 40 + "x.jpg", False),
        ("*1" * 999, False),
        ("**" * 999, True),
        ("*{}1{}1{}1{}*1*1.jpg", True),
    ],
)
def test_no_template_takes_long(template: str, fits: bool, tmp_path: Path) -> None:
    put(tmp_path, "1" * 200 + ".jpg")
    if fits:
        assert names(tmp_path, template) == ["1" * 200 + ".jpg"]
    else:
        assert "no image named like" in refusal(tmp_path, template)


@pytest.mark.parametrize(
    ("template", "wanted"),
    [
        ("cam*_frame*_{:05d}.jpg", numbered("cam1_frame7_{:05d}.jpg", 12)),
        ("*_frame7_*.jpg", numbered("cam1_frame7_{:05d}.jpg", 12)),
        ("cam{}_frame{}_{}.jpg", numbered("cam1_frame7_{:05d}.jpg", 12)),
        ("cam1_frame7_0000{}.jpg", numbered("cam1_frame7_{:05d}.jpg", 9)),
    ],
)
def test_templates_of_several_fields(template: str, wanted: list[str], tmp_path: Path) -> None:
    put(tmp_path, *numbered("cam1_frame7_{:05d}.jpg", 12), *numbered("cam1_frame8-{:05d}.jpg", 12))
    assert names(tmp_path, template) == wanted


def test_templates_of_mit_and_mmaction2_choose_flow(tmp_path: Path) -> None:
    put(tmp_path, *numbered("000012-x_{:05d}.jpg"), *numbered("000012-y_{:05d}.jpg"), *numbered("{:06d}.jpg"))
    wanted = [f"000012-x_{number:05d}.jpg 000012-y_{number:05d}.jpg" for number in (1, 2, 3)]
    assert names(tmp_path, "{:06d}-{}_{:05d}.jpg", flow=True) == wanted
    assert names(tmp_path, flow=True) == wanted
    assert names(tmp_path) == numbered("{:06d}.jpg")


def test_endings_are_those_of_stills_that_pillow_reads() -> None:
    Image.init()
    other = {".gif", ".mpg", ".mpeg", ".pdf", ".eps", ".ps", ".emf", ".wmf", ".fli", ".flc"}  # films and drawings
    data = {".bufr", ".fit", ".fits", ".grib", ".h5", ".hdf", ".iim", ".palm", ".pcd"}
    assert set(IMAGE_ENDINGS) == set(Image.registered_extensions()) - other - data
    assert all(NUMBERED.fullmatch(f"img_01{ending.upper()}") for ending in IMAGE_ENDINGS)
    assert not NUMBERED.fullmatch("img_01.gif")


# --- images ----------------------------------------------------------------------------------------------------------


def test_images_of_several_sizes_are_refused_where_clips_are_cut(tmp_path: Path) -> None:
    put(put(tmp_path, *numbered("{}.png")), "2.png", size=(6, 6))
    with pytest.raises(VideoError, match=r"images differ in size, 1\.png is 8x6 and 2\.png is 6x6; scale them alike$"):
        select.pick(Video("v", tmp_path, 0), range)
    assert select.pick(Video("v", tmp_path, 0), lambda _: [0, 2])[0] == 3


@pytest.mark.parametrize("content", [b"", b"no image"])
def test_broken_images_are_named(content: bytes, tmp_path: Path) -> None:
    (put(tmp_path, *numbered("{}.png")) / "2.png").write_bytes(content)
    with pytest.raises(VideoError) as caught:
        select.pick(Video("v", tmp_path, 0), range)
    assert str(caught.value).startswith(f"{tmp_path}: 2.png: cannot be decoded (")


@pytest.mark.parametrize("number", range(10))
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
def test_exif_puts_images_upright_for_every_reader(number: int, ending: str, tmp_path: Path) -> None:
    upright = np.zeros((40, 60, 3), "uint8")
    upright[:20, :30, 0] = upright[20:, 30:, 1] = 250
    turns = {
        2: lambda u: u[:, ::-1],
        3: lambda u: u[::-1, ::-1],
        4: lambda u: u[::-1],
        5: lambda u: u.transpose(1, 0, 2),
        6: lambda u: np.rot90(u, 1),
        7: lambda u: np.rot90(u, 2).transpose(1, 0, 2),
        8: lambda u: np.rot90(u, -1),
    }
    stored = turns.get(number, lambda u: u)(upright)  # 0 and 9 mean nothing
    exif = Image.Exif()
    exif[0x0112] = number
    for index in (1, 2):
        Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / f"{index}.{ending}", exif=exif, quality=95)
    _, pictures = select.pick(Video("v", tmp_path, 0), range)
    of_run = [frame.image() for frame in source.open_source(str(tmp_path)).frames()]
    (of_clip, _) = select.first(tmp_path, 40, 40)
    quarters = np.ix_((5, -6), (5, -6))
    np.testing.assert_allclose(pictures[1][quarters].astype(int), upright[quarters], atol=10)
    for image in (pictures[0], np.asarray(of_run[0]), np.asarray(of_run[1])):
        assert np.array_equal(image, pictures[1])
    np.testing.assert_allclose(of_clip.transpose(1, 2, 0)[quarters].astype(int), upright[quarters], atol=10)


# --- commands --------------------------------------------------------------------------------------------------------

MODEL = "tsm_mbv2_motion_online"


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the scenes of the bundled task as images, those of another sequence beside them."""
    folder = tmp_path_factory.mktemp("scenes")
    noise = np.random.default_rng(0)
    lines = []
    for index in range(4):
        pictures, label = motion.scene(index, 5)
        (folder / f"v{index}").mkdir()
        for number, picture in enumerate(pictures, 1):
            Image.fromarray(picture).save(folder / f"v{index}" / f"img_{number:05d}.png")
            for part in ("flow_x", "flow_y", "depth"):
                other = Image.fromarray(noise.integers(0, 255, (96, 96), "uint8"))
                other.save(folder / f"v{index}" / f"{part}_{number:05d}.png")
        lines.append(f"v{index} {label}\n")
    (folder / "annotations.txt").write_text("".join(lines))
    (folder / "labels.txt").write_text("".join(f"{name}\n" for name in motion.CLASSES))
    return folder


def test_eval_is_told_which_images(scenes: Path) -> None:
    unclear = invoke("eval", MODEL, "--data", scenes, "--workers", "0", "--json")
    assert "several sequences of images; there is depth_{:05d}.png, img_{:05d}.png" in unclear.output
    found = invoke("eval", MODEL, "--data", scenes, "--workers", "0", "--json", "--images", "img_{:05d}.png")
    assert found.exit_code == 0, found.output
    assert (json.loads(found.stdout)["skipped"], json.loads(found.stdout)["top1"]) == (0, 100.0)


def test_predictions_of_other_images_are_not_gone_on_with(scenes: Path, tmp_path: Path) -> None:
    command = ["eval", MODEL, "--data", scenes, "--workers", "0", "--predictions", tmp_path / "p.jsonl", "--images"]
    assert invoke(*command, "img_{:05d}.png").exit_code == 0
    other = invoke(*command, "depth_{:05d}.png")
    assert other.exit_code == 1
    assert "p.jsonl" in other.output


def test_run_is_told_which_images(scenes: Path) -> None:
    unclear = invoke("run", MODEL, scenes / "v0")
    assert unclear.exit_code == 1
    assert "choose with --images" in unclear.stderr
    found = invoke("run", MODEL, scenes / "v0", "--json", "--images", "img_{:05d}.png")
    assert found.exit_code == 0, found.output
    last = json.loads(found.stdout.splitlines()[-1])
    assert last["top5"][0]["index"] == motion.scene(0, 5)[1]


def test_calibration_reads_folders_of_images_and_films_of_any_ending(scenes: Path, tmp_path: Path) -> None:
    motion.write(tmp_path / "made", 2, 0)
    data = tmp_path / "data"
    for place, path in zip(("a/b/One.MPG", "c.M4V"), sorted((tmp_path / "made").rglob("*.mp4")), strict=True):
        (data / place).parent.mkdir(parents=True, exist_ok=True)
        (data / place).write_bytes(path.read_bytes())
    for name in (".hidden", "__MACOSX"):
        (data / name).mkdir()
        (data / name / "x.mp4").write_bytes(b"x")
    (data / "bad.mkv").write_bytes(b"no video")
    for index in range(2):
        target = data / "deep" / f"{index}"
        target.mkdir(parents=True)
        for image in scenes.glob(f"v{index}/img_*.png"):
            (target / image.name).write_bytes(image.read_bytes())
    said: list[str] = []
    entry = registry.load().find("tsm_mbv2_motion")
    given = calibration.load_calibration(entry, data, notify=said.append)
    assert (len(given.clips), len(given.scored)) == (2, 2)
    assert given.about == "data, 4 of 5 videos, every other one for judging"
    assert said == [
        f"not calibrated with {data / 'bad.mkv'}: cannot be decoded (Invalid data found when processing input); "
        "give a video",
        "1 of the 5 videos that were opened cannot be read and were left out",
    ]
    with pytest.raises(ExportError, match=r"fewer than two of its 4 videos can be read .*several sequences"):
        calibration.load_calibration(entry, scenes)
    chosen = calibration.load_calibration(entry, scenes, "img_{:05d}.png")
    assert len(chosen.clips) + len(chosen.scored) == 4


def test_calibration_takes_the_videos_that_evaluation_takes(tmp_path: Path) -> None:
    motion.write(tmp_path / "made", 4, 0)
    data = tmp_path / "data"
    for name, path in zip(
        ("clap/1", "clap/2", "wave/3", "far/4"), sorted((tmp_path / "made").rglob("*.mp4")), strict=True
    ):
        place = (tmp_path if name == "far/4" else data) / f"{name}.mp4"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(path.read_bytes())
    (data / "wave" / "linked").symlink_to(tmp_path / "far")
    for name in ("", "clap/1", "clap/thumbs", "clap/@eaDir/1.mp4"):
        put(data / name, "cover1.jpg")
    said: list[str] = []
    given = calibration.load_calibration(registry.load().find("tsm_mbv2_motion"), data, notify=said.append)
    assert given.about == "data, 4 of 4 videos, every other one for judging"
    assert said == []
    assert {video.path for video in layouts.read(data).videos} == {
        data / name for name in ("clap/1.mp4", "clap/2.mp4", "wave/3.mp4", "wave/linked/4.mp4")
    }
