"""What `eval` says of the list that it measured on, and of a split that the model was not trained for."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner, Result

from tsmzoo import registry
from tsmzoo.cli import app
from tsmzoo.data import layouts, motion
from tsmzoo.evaluation import report

ZOO = registry.load()
MODEL = "tsm_mbv2_motion"


def invoke(*arguments: object) -> Result:
    result = CliRunner().invoke(app, ["eval", *map(str, arguments), "--workers", "0"], prog_name="tsmzoo")
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def ucf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give clips of two classes of motion in the layout of UCF101, with two splits."""
    folder = tmp_path_factory.mktemp("split")
    motion.write(folder / "made", 28, 5)
    root = folder / "ucf"
    (root / "lists").mkdir(parents=True)
    names = [name.title().replace(" ", "") for name in motion.CLASSES]
    (root / "lists" / "classInd.txt").write_text("".join(f"{n} {name}\n" for n, name in enumerate(names, 1)))
    lists: dict[str, list[str]] = {"01": [], "02": []}
    for number, line in enumerate((folder / "made" / "annotations.txt").read_text().splitlines()[:4]):
        name, label = line.split()
        place = root / names[int(label)] / f"v_{number}.avi"
        place.parent.mkdir(exist_ok=True)
        shutil.copy(folder / "made" / name, place)
        lists[f"0{1 + number % 2}"].append(f"{place.parent.name}/{place.name}\n")
    for split, lines in lists.items():
        (root / "lists" / f"testlist{split}.txt").write_text("".join(lines))
        (root / "lists" / f"trainlist{split}.txt").write_text("".join(f"{line.strip()} 1\n" for line in lines))
    return root


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a registry with a model of motion that was trained on split 1."""
    path = tmp_path_factory.mktemp("own") / "own.yaml"
    entry = msgspec.to_builtins(ZOO.find(MODEL)) | {"id": "mine", "split": 1, "dataset": "ucf101", "results": []}
    entry["file"] = str(Path(registry.__file__).parent / ZOO.find(MODEL).file)
    path.write_text(json.dumps({"models": [entry]}))
    return path


@pytest.fixture(scope="module")
def measured(ucf: Path, own: Path) -> Callable[[int], tuple[Path, Result]]:
    """Give a function from a split to the predictions for it and what `eval` said, computed once."""

    @functools.cache
    def measure(split: int) -> tuple[Path, Result]:
        path = own.parent / f"{split}.jsonl"
        options = ("--registry", own, "--data", ucf, "--split", split, "--predictions", path)
        return path, invoke("mine", *options, "--html", own.parent / f"{split}.html")

    return measure


@pytest.mark.parametrize("split", [1, 2])
def test_the_report_names_list_split_and_digest(
    split: int, ucf: Path, own: Path, measured: Callable[[int], tuple[Path, Result]]
) -> None:
    path, result = measured(split)
    digest = layouts.read(ucf, split=split).list_sha256
    assert f"list lists/testlist0{split}.txt, split {split}, sha256 {digest[:12]}" in result.stdout
    page = (own.parent / f"{split}.html").read_text(encoding="utf-8")
    assert f"lists/testlist0{split}.txt" in page
    assert digest in page
    document: dict[str, Any] = json.loads(invoke(path, "--registry", own, "--json").stdout)
    assert (document["list_file"], document["split"], document["list_sha256"]) == (
        f"lists/testlist0{split}.txt",
        split,
        digest,
    )


def test_another_split_than_that_of_training_is_a_warning(
    own: Path, measured: Callable[[int], tuple[Path, Result]]
) -> None:
    for split, wrong in ((1, False), (2, True)):
        path, result = measured(split)
        said = "mine was trained on split 1 and is tested on split 2"
        assert (f"warning: {said}" in result.stderr) is wrong
        assert (f"differs: {said}" in result.stdout) is wrong
        document = json.loads(invoke(path, "--registry", own, "--json").stdout)
        assert any(said in line for line in document["differences"]) is wrong


def test_published_weights_say_their_split() -> None:
    """Those of mmaction2, whose configurations name the first."""
    entries = [entry for entry in ZOO.models if entry.dataset in ("ucf101", "hmdb51")]
    assert entries
    for entry in entries:
        assert report.warnings(ZOO, entry.id, "published", 1) == []
        assert "trained on split 1" in report.warnings(ZOO, entry.id, "published", 3)[0]
        assert report.warnings(ZOO, entry.id, "random", 3) == report.warnings(ZOO, entry.id, "published", None) == []


def test_a_list_for_training_is_a_warning(ucf: Path, own: Path) -> None:
    path = ucf / "lists" / "trainlist01.txt"
    result = invoke("mine", "--registry", own, "--data", ucf, "--list", path)
    assert f"warning: {path} is a list for training" in result.stderr


def test_predictions_of_an_older_version_are_gone_on_with(
    ucf: Path, own: Path, measured: Callable[[int], tuple[Path, Result]], tmp_path: Path
) -> None:
    whole, _ = measured(1)
    path = tmp_path / "old.jsonl"
    first = whole.read_bytes().splitlines(keepends=True)[0]
    path.write_bytes(first)
    header = json.loads(whole.with_suffix(".json").read_bytes())
    older = {key: value for key, value in header.items() if key not in ("list_file", "split")}
    path.with_suffix(".json").write_text(json.dumps(older))
    result = invoke("mine", "--registry", own, "--data", ucf, "--predictions", path)
    assert path.read_bytes() == whole.read_bytes()
    assert "of an older run" in result.stdout


def test_what_is_left_out_stands_in_the_report(ucf: Path, own: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(ucf, data, ignore=shutil.ignore_patterns("lists"))
    some = next(data.iterdir())
    (some / "notes.doc").touch()
    (data / "Opening of doors").mkdir()
    result = invoke("mine", "--registry", own, "--data", data, "--json")
    document = json.loads(result.stdout)
    assert document["left_out"] == [f"{some.name}/notes.doc"]
    assert document["videos"] == 4
    assert result.stderr.count(f"{some.name}/notes.doc") == 1
    assert "'Opening of doors'" in result.stderr


def test_predictions_of_before_pictures_stood_upright_are_refused(
    ucf: Path, own: Path, measured: Callable[[int], tuple[Path, Result]], tmp_path: Path
) -> None:
    whole, _ = measured(1)
    path = tmp_path / "old.jsonl"
    path.write_bytes(whole.read_bytes())
    header = json.loads(whole.with_suffix(".json").read_bytes())
    assert header.pop("reading") == 2
    path.with_suffix(".json").write_text(json.dumps(header))
    command = ["eval", "mine", "--registry", str(own), "--data", str(ucf), "--predictions", str(path)]
    result = CliRunner().invoke(app, command, prog_name="tsmzoo")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "reads pictures otherwise; predict again" in result.stderr
    assert path.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("option", ["--data", "--list", "--format", "--images"])
def test_saved_predictions_need_no_data(measured: Callable[[int], tuple[Path, Result]], option: str) -> None:
    path, _ = measured(1)
    result = CliRunner().invoke(app, ["eval", str(path), option, "x"], prog_name="tsmzoo")
    assert (result.exit_code, result.stdout) == (2, "")
    assert option in result.stderr
    assert invoke(path).stdout


def test_strict_names_the_file_that_lacks_the_video(
    measured: Callable[[int], tuple[Path, Result]], tmp_path: Path
) -> None:
    whole, _ = measured(1)
    lacking = tmp_path / "lacking.jsonl"
    lacking.with_suffix(".json").write_bytes(whole.with_suffix(".json").read_bytes())
    first, *others = whole.read_bytes().splitlines(keepends=True)
    skipped = json.loads(first) | {"logits": [], "skipped": "is empty"}
    lacking.write_bytes(json.dumps(skipped).encode() + b"\n" + b"".join(others))
    for paths in ((whole, lacking), (lacking, whole)):
        result = CliRunner().invoke(app, ["eval", *map(str, paths), "--strict"], prog_name="tsmzoo")
        assert (result.exit_code, result.stdout) == (1, "")
        assert f"delete {lacking} to try again" in result.stderr
