"""The classes of the data and those of the model; and other mistakes of a user."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from PIL import Image

from tsmzoo import models, registry
from tsmzoo.data import motion
from tsmzoo.errors import DataError
from tsmzoo.evaluation import evaluate

ZOO = registry.load()


#: The smallest networks of the zoo.
TSN, TSM, ONLINE = "tsn_mbv2_motion", "tsm_mbv2_motion", "tsm_mbv2_motion_online"


def test_classes_are_told_by_their_names(
    tmp_path: Path, contract: Callable[..., Any], read: Callable[..., Any]
) -> None:
    """Their order, capitals and underscores may be others than the model's."""
    names = [name.replace(" ", "_").title() for name in reversed(motion.CLASSES)]
    videos = read(tmp_path, [("a.mp4", 0), ("b.mp4", 13), ("c.mp4", 4)], names)
    fitted = evaluate.fitted(ZOO, videos, contract(TSM))
    assert [each.label for each in fitted.videos] == [13, 0, 9]
    assert [each.label for each in videos.videos] == [0, 13, 4]


def test_classes_of_the_model_without_a_video_are_fine(
    tmp_path: Path, contract: Callable[..., Any], read: Callable[..., Any]
) -> None:
    fitted = evaluate.fitted(ZOO, read(tmp_path, [("a.mp4", 1)], ("closing", "opening")), contract(TSM))
    assert [each.label for each in fitted.videos] == [motion.CLASSES.index("opening")]


def test_names_may_be_missing_on_either_side(
    tmp_path: Path, contract: Callable[..., Any], read: Callable[..., Any]
) -> None:
    nameless = msgspec.structs.replace(contract(TSM), labels=None)
    videos = read(tmp_path / "a", [("a.mp4", 13)], None)
    for each in (contract(TSM), nameless):
        assert evaluate.fitted(ZOO, videos, each) == videos
    videos = read(tmp_path / "b", [("a.mp4", 13)])
    assert evaluate.fitted(ZOO, videos, nameless) == videos
    videos = read(tmp_path / "c", [("a.mp4", 1)], ("x", "y"))
    with pytest.raises(DataError, match=f"the data have 2 classes, {TSM} has 14"):
        evaluate.fitted(ZOO, videos, nameless)


def test_other_classes_are_refused(tmp_path: Path, listed: Callable[..., Any], refusal: Callable[..., Any]) -> None:
    listed(tmp_path / "names", [("a.mp4", 0), ("b.mp4", 1)], ("opening", "spinning"))
    error = refusal(TSM, "--data", tmp_path / "names", "--weights", "random")
    assert f"not those of {TSM}: it has no 'spinning'" in error
    listed(tmp_path / "indices", [("a.mp4", 3), ("b.mp4", 14)], None)
    error = refusal(ONLINE, "--data", tmp_path / "indices", "--weights", "random")
    assert f"the list has class 14, but {ONLINE} answers 14 classes" in error


def something_v1(folder: Path) -> Path:
    """Write two folders of images in the layout of Something-Something V1."""
    labels = ("Closing something", "Opening something")
    (folder / "something-something-v1-labels.csv").write_text("".join(f"{label}\n" for label in labels))
    (folder / "something-something-v1-validation.csv").write_text(f"1;{labels[1]}\n2;{labels[0]}\n")
    for name in "12":
        (folder / name).mkdir()
        for number in range(1, 9):
            Image.new("RGB", (32, 24), (30 * number, 0, 0)).save(folder / name / f"{number:05d}.jpg")
    return folder


def test_the_first_edition_is_not_scored_with_weights_of_the_second(
    tmp_path: Path, refusal: Callable[..., Any]
) -> None:
    """Both have 174 classes, whose names all but agree."""
    error = refusal("tsm_r50_sthv2", "--data", something_v1(tmp_path), "--weights", "random")
    assert "the data are somethingv1" in error
    assert "trained on somethingv2" in error
    assert "tsmzoo list --dataset somethingv1" in error


def test_a_folder_of_images_is_a_video(
    tmp_path: Path, answer: Callable[..., Any], lines: Callable[..., Any], own_registry: Callable[..., Any]
) -> None:
    own = own_registry(tmp_path / "own.yaml", ("Closing something", "Opening something"), dataset="somethingv1")
    (tmp_path / "v1").mkdir()
    options = ("--registry", own, "--weights", "random", "--predictions", tmp_path / "p.jsonl")
    document = answer("mine", "--data", something_v1(tmp_path / "v1"), *options)
    assert (document["dataset"], document["videos"], document["skipped"]) == ("somethingv1", 2, 0)
    assert [(row["video"], row["label"]) for row in lines(tmp_path / "p.jsonl")] == [("1", 1), ("2", 0)]


def test_a_model_of_flow_sees_no_video(
    clips: Path, few: Path, monkeypatch: pytest.MonkeyPatch, refusal: Callable[..., Any]
) -> None:
    # A ResNet-50 that is never asked.
    monkeypatch.setattr(models, "build", lambda *_, **__: torch.nn.Identity())
    listing = few.with_name("nameless")
    listing.mkdir()
    (listing / "few.txt").write_text(few.read_text())
    (listing / "videos").symlink_to(clips / "videos")
    options = ("--data", listing, "--list", listing / "few.txt", "--weights", "random")
    error = refusal("tsm_r50_k400_flow", *options)
    assert "is no folder of flow images; extract them, or choose an RGB model" in error


def test_mistakes_are_one_line(
    clips: Path, tmp_path: Path, invoke: Callable[..., Any], refusal: Callable[..., Any]
) -> None:
    assert "did you mean" in refusal("tsm_mbv2_motio", "--data", clips)
    assert "annotations.txt" in refusal(TSM, "--data", tmp_path, "--weights", "random")
    assert "none.txt" in refusal(TSM, "--data", clips, "--list", tmp_path / "none.txt", "--weights", "random")
    assert "does not exist" in refusal(tmp_path / "none.onnx", "--data", clips)
    assert "does not exist" in refusal(TSM, "--data", clips, "--weights", tmp_path / "none.safetensors")
    assert "leave out --weights" in refusal(tmp_path / "m.onnx", "--data", clips, "--weights", "random")
    assert "no layout is called" in refusal(TSM, "--data", clips, "--format", "kinetix")
    for wrong in ((), ("--data", clips, "--frames", "0"), ("--data", clips, "--crops", "2"), ("--data", clips, "-x")):
        assert invoke("eval", TSM, *wrong).exit_code == 2, wrong
