"""`eval`: figures that can be counted by hand, logits that torch gives, and lists of videos, right and wrong."""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner, Result

from tsmzoo import checkpoints, dataset, evaluate, models, motion, recipe, registry, sampling, video
from tsmzoo.artifact import Array, Contract
from tsmzoo.cli import app
from tsmzoo.dataset import Dataset
from tsmzoo.describe import describe
from tsmzoo.errors import DataError
from tsmzoo.evaluate import Scores
from tsmzoo.models.forms import Clips, Step, state_shapes
from tsmzoo.runner import TorchRunner
from tsmzoo.weights import Network

ZOO = registry.load()
#: The smallest networks of the zoo; their own weights are never needed here.
TSN, TSM, ONLINE = "tsn_mbv2_motion", "tsm_mbv2_motion", "tsm_mbv2_motion_online"
MEAN, STD = np.reshape([0.485, 0.456, 0.406], (3, 1, 1)), np.reshape([0.229, 0.224, 0.225], (3, 1, 1))
Z = 1.959964


pytestmark = pytest.mark.usefixtures("one_registry")


def invoke(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def answer(*arguments: str | Path) -> dict[str, Any]:
    """Return the document of an `eval` that succeeds."""
    result = invoke("eval", *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def refusal(*arguments: str | Path) -> str:
    """Return the one line of an `eval` that a user got wrong."""
    result = invoke("eval", *arguments)
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    *notes, error = result.stderr.splitlines()
    assert all(note.startswith("warning: ") and "RANDOM" in note for note in notes)
    assert error.startswith("error: ")
    assert result.stdout == ""
    return error


@functools.cache
def opened(model: str, seed: int = 3) -> tuple[Network, TorchRunner, Contract]:
    """Return a model in torch, its weights from a seed."""
    entry = ZOO.find(model)
    network = Network(entry, models.build(entry, seed=seed), "random", seed=seed)
    contract = describe(ZOO, network)
    return network, TorchRunner(network, contract), contract


def small(path: Path, frames: int = 1, seed: int = 0) -> Path:
    """Write a video of noise, 16 pixels square."""
    path.parent.mkdir(parents=True, exist_ok=True)
    video.encode(path, np.random.default_rng(seed).integers(0, 256, (frames, 16, 16, 3), dtype="uint8"), 8)
    return path


def listed(folder: Path, items: Sequence[tuple[str, int]], classes: Sequence[str] | None = motion.CLASSES) -> Path:
    """Write a list of videos that need not be there."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "annotations.txt").write_text("".join(f"{name} {label}\n" for name, label in items))
    if classes is not None:
        (folder / "labels.txt").write_text("".join(f"{name}\n" for name in classes))
    return folder


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip of each of the 14 classes."""
    folder = tmp_path_factory.mktemp("evaluate") / "clips"
    motion.write(folder, 14, 5)
    return folder


@pytest.fixture(scope="module")
def few(clips: Path) -> Path:
    """A list of three of them."""
    path = clips.parent / "few.txt"
    path.write_text("".join((clips / "annotations.txt").read_text().splitlines(keepends=True)[:3]))
    return path


# --- figures, by hand -------------------------------------------------------------------------------------------------


class Answers:
    """A runner that gives one row of logits after the other, whatever it is shown."""

    runtime = "by hand"

    def __init__(self, rows: Sequence[Sequence[float]]) -> None:
        self.rows = [np.array([row], "float32") for row in rows]
        self.shapes: list[tuple[int, ...]] = []

    def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        self.shapes.append(inputs["clip"].shape)
        return {"logits": self.rows.pop(0)}


def ranking(*order: int) -> list[float]:
    """Return logits that put the classes in this order, the first one first."""
    return [float(-order.index(index)) for index in range(len(order))]


#: Label, and the order that the model has the six classes in. Right: 0, 1, 2, 4, 8; among the first five: 5, 6, 9, too.
CASES = [
    (0, (0, 1, 2, 3, 4, 5)),
    (0, (0, 5, 4, 3, 2, 1)),
    (0, (0, 2, 1, 3, 5, 4)),
    (0, (1, 2, 3, 4, 5, 0)),
    (1, (1, 0, 2, 3, 4, 5)),
    (1, (0, 1, 2, 3, 4, 5)),
    (2, (3, 2, 1, 0, 4, 5)),
    (2, (0, 1, 3, 4, 5, 2)),
    (5, (5, 0, 1, 2, 3, 4)),
    (5, (4, 3, 2, 1, 5, 0)),
]


def six_classes(**changes: Any) -> Contract:
    return msgspec.structs.replace(opened(TSM)[2], **({"classes": 6, "labels": None} | changes))


def scored(folder: Path, cases: Sequence[tuple[int, tuple[int, ...]]] = CASES) -> tuple[Dataset, Contract, Answers]:
    """Return a video for each case, and the model that answers them so."""
    names = [f"{number}.mp4" for number in range(len(cases))]
    for name in names:
        small(folder / name)
    listed(folder, [(name, label) for name, (label, _) in zip(names, cases, strict=True)], None)
    return dataset.read(folder), six_classes(), Answers([ranking(*order) for _, order in cases])


def test_figures_are_those_counted_by_hand(tmp_path: Path) -> None:
    videos, contract, runner = scored(tmp_path)
    seen: list[tuple[int, int]] = []
    scores = evaluate.score(runner, contract, videos, 4, lambda *steps: seen.append(steps))
    assert seen == [(done, 10) for done in range(10)]
    assert runner.shapes == [(1, 4, 3, 64, 64)] * 10
    document = evaluate.summary(scores, videos, contract, 4)
    assert (document["videos"], document["skipped"], document["skipped_videos"]) == (10, 0, [])
    assert document["top1"] == 50
    assert document["top5"] == 80
    assert document["mean_class"] == 43.75  # of 3/4, 1/2, 0/2 and 1/2: classes without a video do not count
    assert document["ci95"] == [23.66, 76.34]
    assert document["videos_per_s"] == pytest.approx(10 / scores.seconds, abs=0.1)
    assert document["protocol"] == "uniform4_center_1clip"
    assert (document["model"], document["trained_on"]) == (TSM, "motion")


def test_fewer_classes_than_five_are_always_among_the_first_five() -> None:
    scores = Scores([0, 1, 1], [np.array(row) for row in ([1, 0], [1, 0], [0, 1])], seconds=2.0)
    videos = Dataset((Path("a"), Path("b"), Path("c")), (0, 1, 1), None, "0" * 64)
    document = evaluate.summary(scores, videos, six_classes(classes=2, stride=2), 8)
    assert (document["top1"], document["top5"], document["mean_class"]) == (66.67, 100, 75)
    assert document["videos_per_s"] == 1.5
    assert document["protocol"] == "dense8_center_1clip"


#: Right, of, and Wilson's interval: (s + z²/2n ± z sqrt(s(1 - s)/n + z²/4n²)) / (1 + z²/n).
WILSON = [
    (0, 10, 0, 0.2775),
    (10, 10, 0.7225, 1),
    (5, 10, 0.2366, 0.7634),
    (1, 10, 0.0179, 0.4042),
    (81, 263, 0.2553, 0.3662),  # these as in Newcombe, 1998, Table I
    (15, 148, 0.0624, 0.1605),
    (0, 20, 0, 0.1611),
    (1, 29, 0.0061, 0.1718),
]


@pytest.mark.parametrize(("right", "of", "low", "high"), WILSON)
def test_interval_is_wilsons(right: int, of: int, low: float, high: float) -> None:
    assert evaluate.interval(right, of) == pytest.approx((low, high), abs=6e-5)


@given(st.integers(1, 3000).flatmap(lambda of: st.tuples(st.integers(0, of), st.just(of))))
@settings(deadline=None)
def test_interval_ends_where_the_share_is_two_deviations_off(case: tuple[int, int]) -> None:
    """What defines it: were the truth at either end, the share would just be 1.96 standard deviations away."""
    right, of = case
    low, high = evaluate.interval(right, of)
    share = right / of
    assert 0 <= low <= share + 1e-12
    assert share - 1e-12 <= high <= 1
    for end, extreme in ((low, right == 0), (high, right == of)):
        if not extreme:  # there the end is the share itself
            assert abs(share - end) == pytest.approx(Z * math.sqrt(end * (1 - end) / of), rel=1e-6, abs=1e-9)
    assert evaluate.interval(of - right, of) == pytest.approx((1 - high, 1 - low), abs=1e-12)


# --- videos that cannot be decoded ------------------------------------------------------------------------------------


def test_what_cannot_be_decoded_is_named_and_the_rest_keeps_its_answers(tmp_path: Path) -> None:
    kept = [CASES[index] for index in (0, 3, 4, 6, 9)]
    videos, contract, runner = scored(tmp_path, kept)
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "empty.mp4").write_bytes(b"")
    lines = (tmp_path / "annotations.txt").read_text().splitlines()
    lines[1:1], lines[4:4] = ["noise.mp4 1", "missing.mp4 2"], ["empty.mp4 0"]
    (tmp_path / "annotations.txt").write_text("\n".join(lines))
    scores = evaluate.score(runner, contract, videos := dataset.read(tmp_path), 4, lambda *_: None)
    assert len(videos) == 8
    assert scores.labels == [label for label, _ in kept]
    assert [row.argmax() for row in scores.logits] == [order[0] for _, order in kept]
    assert [path.name for path, _ in scores.skipped] == ["noise.mp4", "missing.mp4", "empty.mp4"]
    document = evaluate.summary(scores, videos, contract, 4)
    assert (document["videos"], document["skipped"], document["top1"], document["top5"]) == (5, 3, 40, 80)
    for row, (path, why) in zip(document["skipped_videos"], scores.skipped, strict=True):
        assert row == {"video": str(path), "why": why}
        assert str(path) in why
        assert "\n" not in why


def test_skipped_videos_are_counted_and_the_first_of_them_told(clips: Path, tmp_path: Path) -> None:
    listed(tmp_path, [*((f"gone{number}.mp4", number) for number in range(7)), ("here.mp4", 3)])
    (tmp_path / "here.mp4").write_bytes(next((clips / "videos").iterdir()).read_bytes())
    document = answer(TSN, "--data", tmp_path, "--weights", "random")
    assert (document["videos"], document["skipped"]) == (1, 7)
    assert [Path(row["video"]).name for row in document["skipped_videos"]] == [f"gone{n}.mp4" for n in range(7)]
    result = invoke("eval", TSN, "--data", tmp_path, "--weights", "random")
    assert "1 videos, 7 skipped" in result.stdout
    assert [f"gone{number}.mp4" in result.stdout for number in range(7)] == [True] * 5 + [False] * 2
    assert "… and 2 more" in result.stdout


def test_nothing_that_can_be_decoded_is_an_error(tmp_path: Path) -> None:
    listed(tmp_path, [("a.mp4", 0), ("b.mp4", 1)])
    (tmp_path / "a.mp4").write_bytes(b"no video")
    error = refusal(TSM, "--data", tmp_path, "--weights", "random")
    assert "none of the 2 videos" in error
    assert str(tmp_path / "a.mp4") in error


def test_a_video_that_must_not_be_read_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    videos, contract, runner = scored(tmp_path, CASES[:2])
    opened_ = Path.open

    def locked(self: Path, *arguments: Any, **options: Any) -> Any:
        if self == tmp_path / "0.mp4":
            raise PermissionError(13, "Permission denied", str(self))
        return opened_(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", locked)
    scores = evaluate.score(runner, contract, videos, 4, lambda *_: None)
    assert [path.name for path, _ in scores.skipped] == ["0.mp4"]


# --- logits, by torch -------------------------------------------------------------------------------------------------


def normalised(path: Path, frames: int) -> torch.Tensor:
    """Return the frames that `eval` shows a model: T, C, H, W."""
    images = [image for _, image in video.decode(path)]
    chosen = [images[index] for index in sampling.centres(len(images), frames)]
    pixels = np.stack([video.prepare(image, 73, 64) for image in chosen])
    return torch.from_numpy((pixels / 255 - MEAN) / STD).float()


def close(got: Array, wanted: torch.Tensor, tolerance: float = 1e-5) -> bool:
    return float(np.abs(got - wanted.numpy()).max()) <= tolerance * float(np.ptp(wanted.numpy()))


@torch.no_grad()
@pytest.mark.parametrize("model", [TSN, TSM])
def test_an_offline_model_sees_the_centres_of_segments(model: str, clips: Path, few: Path) -> None:
    videos = dataset.read(clips, few)
    network, runner, contract = opened(model)
    scores = evaluate.score(runner, contract, videos, 8, lambda *_: None)
    assert scores.labels == list(videos.labels)
    for path, logits in zip(videos.videos, scores.logits, strict=True):
        assert close(logits, Clips(network.backbone, 8)(normalised(path, 8)[None])[0])


@torch.no_grad()
@pytest.mark.parametrize("frames", [8, 5])
def test_an_online_model_answers_the_mean_over_its_steps(frames: int, clips: Path, few: Path) -> None:
    videos = dataset.read(clips, few)
    network, runner, contract = opened(ONLINE)
    scores = evaluate.score(runner, contract, videos, frames, lambda *_: None)
    step = Step(network.backbone)
    for path, got in zip(videos.videos, scores.logits, strict=True):
        clip, answers = normalised(path, frames), []
        states = [torch.zeros(shape) for shape in state_shapes(network.backbone, 3, 64)]  # of each video anew
        for frame in clip.split(1):
            logits, *states = step(frame, *states)
            answers.append(logits[0])
        assert close(got, torch.stack(answers).mean(0))
        assert close(got, Clips(network.backbone, frames, online=True)(clip[None])[0])
        assert not close(got, Clips(network.backbone, frames)(clip[None])[0], 1e-4), "the two shifts must differ"


def test_a_blind_model_answers_a_scene_backwards_alike(clips: Path) -> None:
    """Clips come in twins, one the other backwards: TSN cannot tell them apart, TSM can."""
    # motion.write names the clips in this order, twins side by side.
    twins = np.random.default_rng(5).permutation(14).reshape(-1, 2)
    for model, alike in ((TSN, True), (TSM, False), (ONLINE, False)):
        _, runner, contract = opened(model)
        logits = np.stack(evaluate.score(runner, contract, dataset.read(clips), 8, lambda *_: None).logits)[twins]
        difference = np.abs(logits[:, 0] - logits[:, 1]).max(1) / np.ptp(logits)
        assert (difference < 1e-5).all() if alike else (difference > 1e-4).all()


def test_dense_sampling_is_the_models_own(tmp_path: Path) -> None:
    frames = np.zeros((40, 16, 16, 3), "uint8")
    frames += (6 * np.arange(40, dtype="uint8")).reshape(-1, 1, 1, 1)
    video.encode(tmp_path / "grey.mp4", frames, 8)
    listed(tmp_path, [("grey.mp4", 0)], None)
    seen: list[Array] = []

    class Eyes:
        runtime = "eyes"

        def run(self, inputs: dict[str, Array]) -> dict[str, Array]:
            seen.append(inputs["clip"])
            return {"logits": np.zeros((1, 6), "float32")}

    contract = six_classes(mean=(0, 0, 0), std=(1, 1, 1), stride=3)
    evaluate.score(Eyes(), contract, dataset.read(tmp_path), 4, lambda *_: None)
    # In the middle of 40 frames 4, each the third: 14, 17, 20, 23.
    assert np.round(255 * seen[0][0].mean((1, 2, 3)) / 6).tolist() == [14, 17, 20, 23]


# --- classes ----------------------------------------------------------------------------------------------------------


def test_other_classes_are_refused_by_their_names_before_a_video_is_opened(tmp_path: Path) -> None:
    swapped = [motion.CLASSES[index] for index in (0, 2, 1, *range(3, 14))]
    listed(tmp_path, [("none.mp4", 0)], swapped)
    error = refusal(TSM, "--data", tmp_path, "--weights", "random")
    assert TSM in error
    assert f"{motion.CLASSES[1]!r}" in error
    assert f"{motion.CLASSES[2]!r}" in error


@pytest.mark.parametrize("classes", [motion.CLASSES[:13], (*motion.CLASSES, "one more")])
def test_more_or_fewer_classes_are_refused_by_their_numbers(classes: tuple[str, ...], tmp_path: Path) -> None:
    listed(tmp_path, [("none.mp4", 0)], classes)
    error = refusal(TSM, "--data", tmp_path, "--weights", "random")
    assert "14 classes" in error
    assert str(len(classes)) in error


def test_a_class_that_the_model_does_not_answer_is_refused(tmp_path: Path) -> None:
    listed(tmp_path, [("a.mp4", 3), ("b.mp4", 14)], None)
    error = refusal(ONLINE, "--data", tmp_path, "--weights", "random")
    assert "class 14" in error
    assert "14 classes" in error
    assert ONLINE in error


def test_names_may_be_missing_on_either_side(tmp_path: Path) -> None:
    without = dataset.read(listed(tmp_path / "a", [("a.mp4", 13)], None))
    evaluate.check_fit(registry.load(), without, opened(TSM)[2])
    six = dataset.read(listed(tmp_path / "b", [("a.mp4", 5)]))
    evaluate.check_fit(registry.load(), six, six_classes())
    with pytest.raises(DataError, match="class 13"):
        evaluate.check_fit(registry.load(), without, six_classes())


def test_the_same_classes_are_taken(clips: Path) -> None:
    evaluate.check_fit(registry.load(), dataset.read(clips), opened(TSM)[2])


# --- lists of videos --------------------------------------------------------------------------------------------------


def read(folder: Path, content: str | bytes, classes: str | bytes | None = None, **options: Any) -> Dataset:
    for name, text in (("annotations.txt", content), ("labels.txt", classes)):
        if text is not None:
            (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return dataset.read(folder, **options)


def unreadable(folder: Path, *content: str | bytes | None, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(folder, *content, **options) if content else dataset.read(folder, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_paths_may_hold_spaces_and_more(tmp_path: Path) -> None:
    names = ["a b/c  d.mp4", "Ünï – ½.mp4", "1 2", "a/../b.mp4", "#x", "'q' \"r\".mp4", "/elsewhere/v.mp4"]
    found = read(tmp_path, "".join(f"{name} {label}\n" for label, name in enumerate(names)))
    assert list(found.videos) == [tmp_path / name for name in names]
    assert found.labels == tuple(range(len(names)))
    assert found.videos[-1] == Path("/elsewhere/v.mp4")
    assert len(found) == len(names)
    assert found.classes is None


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_blank_lines_and_the_ends_of_lines_do_not_matter(end: str, tmp_path: Path) -> None:
    content = end.join(["", "a b.mp4 0", "   ", "\t", "c.mp4 1 ", "", " d.mp4\t 2"])
    for text in (content, content + end, content + 3 * end):
        found = read(tmp_path, text, end.join(["x", "y y", "z"]))
        assert [path.relative_to(tmp_path).as_posix().strip() for path in found.videos] == ["a b.mp4", "c.mp4", "d.mp4"]
        assert found.labels == (0, 1, 2)
        assert found.classes == ("x", "y y", "z")
        assert found.list_sha256 == hashlib.sha256(text.encode()).hexdigest()


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    found = read(tmp_path, "\ufeffa.mp4 0\n", "\ufeffx\n")
    assert found.videos == (tmp_path / "a.mp4",)
    assert found.classes == ("x",)


@pytest.mark.parametrize("line", ["a.mp4", "a.mp4 x", "a.mp4 -1", "a.mp4 1.5", "7", "a.mp4 1 x", "a.mp4 ²"])
def test_a_malformed_line_is_named_by_its_number(line: str, tmp_path: Path) -> None:
    message = unreadable(tmp_path, f"fine.mp4 0\n\n{line}\nalso fine.mp4 1\n")
    assert message.startswith(f"{tmp_path / 'annotations.txt'}: line 3 is {line!r}")


def test_a_class_without_a_name_is_named_by_its_line(tmp_path: Path) -> None:
    message = unreadable(tmp_path, "a.mp4 1\nb.mp4 2\n", "x\ny\n")
    assert message.startswith(f"{tmp_path / 'annotations.txt'}: line 2 has class 2")
    assert "2 classes" in message
    assert str(tmp_path / "labels.txt") in message


def test_lists_that_are_no_lists(tmp_path: Path) -> None:
    path = tmp_path / "annotations.txt"
    assert f"{path}: cannot be read (No such file" in unreadable(tmp_path)
    assert "--list" in unreadable(tmp_path / "nowhere")
    assert f"{path}: lists no video" in unreadable(tmp_path, "")
    assert f"{path}: lists no video" in unreadable(tmp_path, " \n\r\n\n")
    assert f"{path}: is not text" in unreadable(tmp_path, b"\xff\xfe\x00a")
    path.unlink()
    path.mkdir()
    assert f"{path}: cannot be read" in unreadable(tmp_path)
    other = tmp_path / "none.txt"
    assert f"{other}: cannot be read" in unreadable(tmp_path, list_file=other)


def test_labels_that_are_no_text_are_named(tmp_path: Path) -> None:
    assert unreadable(tmp_path, "a.mp4 0\n", b"\xff\xfe\x00a").startswith(str(tmp_path / "labels.txt"))


def test_a_list_elsewhere_has_paths_from_the_data_folder(tmp_path: Path) -> None:
    data, other = tmp_path / "data", tmp_path / "lists" / "few.txt"
    listed(data, [("all.mp4", 0)], ("x", "y"))
    other.parent.mkdir()
    other.write_text("videos/few.mp4 1\n")
    found = dataset.read(data, other)
    assert found.videos == (data / "videos" / "few.mp4",)
    assert found.classes == ("x", "y")
    assert found.list_sha256 == hashlib.sha256(other.read_bytes()).hexdigest()
    other.write_text("videos/few.mp4 2\n")
    assert f"{other}: line 1 has class 2" in unreadable(data, list_file=other)


#: Printable, no line of its own, and not blank at either end, which reading strips.
NAMES = st.text(st.characters(exclude_categories=("C", "Z"), include_characters=" "), min_size=1).map(str.strip)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_read_again(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.getbasetemp() / "written"
    folder.mkdir(exist_ok=True)
    classes = data.draw(st.lists(NAMES.filter(bool), min_size=1, max_size=5, unique=True))
    labels = st.integers(0, len(classes) - 1)
    items = data.draw(st.lists(st.tuples(NAMES.filter(bool), labels), min_size=1, max_size=8))
    dataset.write(folder, items, classes)
    found = dataset.read(folder)
    assert found.classes == tuple(classes)
    assert found.videos == tuple(folder / name for name, _ in items)
    assert found.labels == tuple(label for _, label in items)
    assert found.list_sha256 == hashlib.sha256((folder / "annotations.txt").read_bytes()).hexdigest()


# --- the command ------------------------------------------------------------------------------------------------------

KEYS = {
    *("model", "protocol", "dataset", "videos", "skipped", "top1", "top5", "mean_class", "ci95", "published"),
    *("videos_per_s", "weights_sha256", "list_sha256", "decoder"),
}


@pytest.mark.parametrize("model", [TSM, ONLINE])
def test_json_keys(model: str, clips: Path) -> None:
    result = invoke("eval", model, "--data", clips, "--weights", "random", "--json")
    assert result.exit_code == 0, result.output
    assert result.stderr == f"warning: the weights of {model} are RANDOM (seed 0); its answers mean nothing\n"
    document = json.loads(result.stdout)
    assert document.keys() >= KEYS
    assert (document["model"], document["dataset"], document["videos"], document["skipped"]) == (model, "clips", 14, 0)
    assert recipe.protocol(document["protocol"]).frames == 8
    assert recipe.protocol(document["protocol"]).views == 1
    assert 0 <= document["ci95"][0] <= document["top1"] <= document["ci95"][1] <= 100
    assert document["top1"] <= document["top5"] <= 100
    assert document["mean_class"] == document["top1"]  # one video a class
    assert document["videos_per_s"] > 0
    assert (document["weights"], document["weights_sha256"]) == ("random", None)
    assert document["list_sha256"] == hashlib.sha256((clips / "annotations.txt").read_bytes()).hexdigest()
    for word in ("PyAV", "Pillow", "anti-aliased"):
        assert word in document["decoder"]
    assert document["published"] == [msgspec.to_builtins(result) for result in ZOO.find(model).results]


def test_figures_are_those_of_the_networks_own_logits(clips: Path) -> None:
    videos = dataset.read(clips)
    network = opened(TSM, seed=9)[0]
    with torch.no_grad():
        clip = torch.stack([normalised(path, 8) for path in videos.videos])
        logits = Clips(network.backbone, 8)(clip)
    right = int((logits.argmax(1) == torch.tensor(videos.labels)).sum())
    among = int((logits.topk(5).indices == torch.tensor(videos.labels)[:, None]).sum())
    document = answer(TSM, "--data", clips, "--weights", "random", "--seed", "9")
    assert (document["top1"], document["top5"]) == (round(100 * right / 14, 2), round(100 * among / 14, 2))


def test_text_says_the_same(clips: Path) -> None:
    arguments = ("eval", TSM, "--data", clips, "--weights", "random")
    document, text = answer(*arguments[1:]), invoke(*arguments).stdout
    assert f"top-1 {document['top1']:.2f} %" in text
    assert f"top-5 {document['top5']:.2f} %" in text
    assert "14 videos, uniform8_center_1clip" in text
    assert f"published: top-1 {document['published'][0]['top1']} under {document['published'][0]['protocol']}" in text
    assert "skipped" not in text


def test_a_list_of_ones_own_is_measured(clips: Path, few: Path) -> None:
    document = answer(TSN, "--data", clips, "--list", few, "--weights", "random")
    assert document["videos"] == 3
    assert document["list_sha256"] == hashlib.sha256(few.read_bytes()).hexdigest()


def test_frames_can_be_chosen(clips: Path, few: Path) -> None:
    for model in (TSM, ONLINE):
        document = answer(model, "--data", clips, "--list", few, "--weights", "random", "--frames", "4")
        assert document["protocol"] == "uniform4_center_1clip"


def test_ones_own_weights_are_named_by_their_digest(clips: Path, few: Path, tmp_path: Path) -> None:
    """Saved, they answer as they did; in a registry beside them, they are a model like any other."""
    network, path = opened(ONLINE, seed=4)[0], tmp_path / "mine.safetensors"
    checkpoints.save(network.backbone, network.entry, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    wanted = answer(ONLINE, "--data", clips, "--list", few, "--weights", "random", "--seed", "4")
    figures = {key: wanted[key] for key in ("top1", "top5", "mean_class", "protocol", "videos")}

    document = answer(ONLINE, "--data", clips, "--list", few, "--weights", path)
    assert (document["weights"], document["weights_sha256"]) == ("local", digest)
    assert figures.items() <= document.items()

    own = tmp_path / "own.yaml"
    entry = msgspec.to_builtins(network.entry) | {"id": "mine", "file": "mine.safetensors", "sha256": digest}
    own.write_text(json.dumps({"models": [entry | {"urls": [], "results": []}]}))  # JSON is YAML
    document = answer("mine", "--registry", own, "--data", clips, "--list", few)
    assert (document["model"], document["weights"], document["weights_sha256"]) == ("mine", "published", digest)
    assert document["published"] == []
    assert figures.items() <= document.items()
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    assert digest in refusal("mine", "--registry", own, "--data", clips, "--list", few)


def test_mistakes_are_one_line(clips: Path, tmp_path: Path) -> None:
    assert "did you mean" in refusal("tsm_mbv2_motio", "--data", clips)
    assert "annotations.txt" in refusal(TSM, "--data", tmp_path / "none", "--weights", "random")
    assert "none.txt" in refusal(TSM, "--data", clips, "--list", tmp_path / "none.txt", "--weights", "random")
    assert "does not exist" in refusal(tmp_path / "none.onnx", "--data", clips)
    assert "does not exist" in refusal(TSM, "--data", clips, "--weights", tmp_path / "none.safetensors")
    assert invoke("eval", TSM).exit_code == 2
    assert invoke("eval", TSM, "--data", clips, "--frames", "0").exit_code == 2


def test_a_model_of_flow_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed(tmp_path, [("none.mp4", 0)], None)
    monkeypatch.setattr(models, "build", lambda *_, **__: torch.nn.Identity())  # a ResNet-50 that is never asked
    assert "optical flow" in refusal("tsm_r50_k400_flow", "--data", tmp_path, "--weights", "random")


# --- exported files ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """Give a function from model and format to an exported file of random weights."""
    folder = tmp_path_factory.mktemp("exported")

    @functools.cache
    def export(model: str, to: str) -> Path:
        pytest.importorskip({"onnx": "onnxscript", "tflite": "litert_torch"}[to])
        path = folder / f"{model}.{to}"
        result = invoke("export", model, "--to", to, "-o", path, "--weights", "random", "--seed", 2)
        assert result.exit_code == 0, result.output
        return path

    return export


@pytest.mark.slow
@pytest.mark.parametrize("to", ["onnx", "tflite"])
@pytest.mark.parametrize("model", [TSM, ONLINE])
def test_a_file_gets_the_figures_of_torch(
    model: str, to: str, exported: Callable[[str, str], Path], clips: Path
) -> None:
    wanted = answer(model, "--data", clips, "--weights", "random", "--seed", "2")
    document = answer(exported(model, to), "--data", clips)
    assert (document["model"], document["format"]) == (model, to)
    for key in ("top1", "top5", "mean_class", "ci95", "videos", "protocol", "list_sha256"):
        assert document[key] == wanted[key], key
    result = invoke("eval", exported(model, to), "--data", clips)
    assert "RANDOM" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("to", ["onnx", "tflite"])
@pytest.mark.parametrize("model", [TSM, ONLINE])
def test_a_file_gives_the_logits_of_torch(
    model: str, to: str, exported: Callable[[str, str], Path], clips: Path
) -> None:
    """To a ten-thousandth, that is to say whatever the figures were: same frames, same states, same mean."""
    from tsmzoo.live import open_runner

    videos, (_, runner, contract) = dataset.read(clips), opened(model, seed=2)
    wanted = np.stack(evaluate.score(runner, contract, videos, 8, lambda *_: None).logits)
    found = np.stack(evaluate.score(*open_runner(exported(model, to)), videos, 8, lambda *_: None).logits)
    assert np.abs(found - wanted).max() <= 1e-4 * np.ptp(wanted)


def test_weights_for_a_file_that_has_its_own_are_refused(clips: Path, tmp_path: Path) -> None:
    assert "leave out --weights" in refusal(tmp_path / "m.onnx", "--data", clips, "--weights", "random")


@pytest.mark.slow
def test_frames_that_a_file_does_not_take_are_refused(exported: Callable[[str, str], Path], clips: Path) -> None:
    assert "8 frames" in refusal(exported(TSM, "onnx"), "--data", clips, "--frames", "4")


def test_pictures_are_prepared_as_the_protocol_says() -> None:
    """The short side to 8/7 of the model's, the centre of it: 73 and 64 of 96."""
    pixels = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype="uint8")
    small_ = np.asarray(Image.fromarray(pixels).resize((73, 73), Image.Resampling.BILINEAR))
    contract = opened(TSM)[2]
    assert (contract.resize, contract.size) == (73, 64)
    prepared = video.prepare(Image.fromarray(pixels), contract.resize, contract.size)
    assert np.array_equal(prepared, small_[4:68, 4:68].transpose(2, 0, 1))
