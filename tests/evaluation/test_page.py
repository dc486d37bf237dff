"""The page that `eval --html` writes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tsmzoo.data import motion

#: The smallest networks of the zoo.
TSN, TSM, ONLINE = "tsn_mbv2_motion", "tsm_mbv2_motion", "tsm_mbv2_motion_online"


def test_the_page_holds_all_that_it_shows(
    clips: Path, few: Path, tmp_path: Path, answer: Callable[..., Any], page: Callable[..., Any]
) -> None:
    options = ("--data", clips, "--list", few, "--weights", "random", "--observe", "25,50")
    document = answer(TSM, *options)
    text = page(TSM, *options, at=tmp_path / "page.html")
    assert text.startswith("<!doctype html>")
    sources = re.findall(r"""(?:src|href)\s*=\s*["']?([^"'> ]{0,30})""", text)
    assert len(sources) == 2, "early recognition and the confusion matrix"
    assert all(source.startswith("data:image/png;base64,iVBOR") for source in sources)
    assert not re.search(r"<script|<link|<iframe|@import|url\(", text)
    for said in (TSM, f"top-1 {document['top1']:.2f} %", document["list_sha256"], document["decoder"], "Early"):
        assert said in text
    assert f"{document['ci95'][0]:.2f}…{document['ci95'][1]:.2f}" in text
    for row in document["worst_classes"]:
        assert f"<td>{row['class']}</td>" in text


@pytest.mark.parametrize(
    "names",
    [
        ("$", "$$"),
        ("$\\frac$", "$x_$"),
        ("开门", "关门"),
        ("Pretending to close something without actually closing it", "x"),
        ("a\\b", "%s {0}"),
    ],
    ids=["dollars", "formula", "Chinese", "long", "signs"],
)
def test_the_page_draws_any_class_name(
    names: tuple[str, str],
    clips: Path,
    few: Path,
    tmp_path: Path,
    listed: Callable[..., Any],
    own_registry: Callable[..., Any],
    page: Callable[..., Any],
) -> None:
    classes = [*names, *motion.CLASSES[2:]]
    own = own_registry(tmp_path / "own.yaml", classes)
    videos = [line.split()[0] for line in few.read_text().splitlines()]
    listing = listed(tmp_path / "lists", [("none.mp4", 0)], classes) / "few.txt"
    listing.write_text("".join(f"{name} {label}\n" for label, name in enumerate(videos)))
    options = ("--registry", own, "--data", clips, "--list", listing, "--weights", "random")
    assert "<img" in page("mine", *options, at=tmp_path / "page.html")


@pytest.mark.slow
def test_the_page_of_several_models_names_all(
    tmp_path: Path, saved: Callable[..., Path], page: Callable[..., Any]
) -> None:
    paths = saved(TSM, "--weights", "random"), saved(TSN, "--weights", "random")
    text = page(*paths, "--weights-of-scores", "1,1.5", at=tmp_path / "page.html")
    assert f"{TSM} + 1.5 x {TSN}" in text


def test_a_page_that_cannot_be_written_is_one_line(
    tmp_path: Path, saved: Callable[..., Path], refusal: Callable[..., Any]
) -> None:
    error = refusal(saved(TSM, "--weights", "random"), "--html", tmp_path / "none" / "page.html")
    assert "page.html: cannot be written" in error
