"""A file of one's own training finds the registry that its model is in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner, Result

import tsmzoo
from tsmzoo import models, registry
from tsmzoo.artifact.store import read_contract
from tsmzoo.cli import app
from tsmzoo.data import motion
from tsmzoo.weights import checkpoint
from tsmzoo.weights.load import with_model_of

ZOO = registry.load()
MODEL = "tsm_mbv2_motion_online"


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refusal(*arguments: object) -> str:
    result = invoke(*arguments)
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code == 1, result.output
    *_, error = result.stderr.splitlines()
    return error


def trained(folder: Path, seed: int) -> Path:
    """Write what a training leaves: weights, and a registry with `mine`."""
    folder.mkdir()
    entry = msgspec.structs.replace(ZOO.find(MODEL), id="mine")
    checkpoint.save(models.build(entry, seed=seed), entry, folder / "model.safetensors")
    digest = checkpoint.load(models.build(entry), entry, folder / "model.safetensors").sha256
    document = msgspec.to_builtins(entry) | {"urls": [], "file": "model.safetensors", "sha256": digest, "results": []}
    path = folder / "registry.yaml"
    path.write_text(json.dumps({"models": [document]}), encoding="utf-8")  # JSON is YAML
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """An exported file, the registry of its model, and clips."""
    pytest.importorskip("onnxscript")
    folder = tmp_path_factory.mktemp("beside")
    own = trained(folder / "run", 1)
    (folder / "files").mkdir()
    motion.write(folder / "clips", 2, 5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TSMZOO_CACHE", str(folder / "cache"))
        result = invoke("export", "mine", "--registry", own, "--to", "onnx", "-o", folder / "files" / "m.onnx")
    assert result.exit_code == 0, result.output
    return folder / "files" / "m.onnx", own, folder / "clips"


@pytest.fixture
def remembered(made: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path, Path]:
    monkeypatch.setenv("TSMZOO_CACHE", str(made[1].parent.parent / "cache"))
    return made


def evaluated(*arguments: object) -> dict[str, Any]:
    result = invoke("eval", *arguments, "--workers", 0, "--json")
    assert result.exit_code == 0, result.output
    return {key: value for key, value in json.loads(result.stdout).items() if key != "videos_per_s"}


@pytest.mark.slow
def test_the_registry_of_the_export_is_remembered(remembered: tuple[Path, Path, Path]) -> None:
    path, own, clips = remembered
    result = invoke("verify", path, "--steps", 2, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["model"] == "mine"
    assert evaluated(path, "--data", clips) == evaluated(path, "--data", clips, "--registry", own)


def test_a_registry_beside_the_file_is_found(made: tuple[Path, Path, Path], tmp_path: Path) -> None:
    path, own, clips = made
    for file in (path, path.with_suffix(".json"), own, own.parent / "model.safetensors"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert invoke("verify", tmp_path / "m.onnx", "--steps", 2).exit_code == 0
    assert evaluated(tmp_path / "m.onnx", "--data", clips)["model"] == "mine"
    # One that holds another model of that name is not taken for it.
    other = trained(tmp_path / "other", 2)
    (tmp_path / "registry.yaml").write_bytes(other.read_bytes())
    assert "--registry FILE" in refusal("verify", tmp_path / "m.onnx")


@pytest.mark.parametrize("command", [("verify",), ("eval", "--data", "{clips}"), ("verify", "--clip", "{clip}")])
@pytest.mark.parametrize("beside", [None, "", "models: [", "models: []"])
def test_where_none_is_found_one_line_says_so(
    beside: str | None, command: tuple[str, ...], made: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    path, _, clips = made
    for file in (path, path.with_suffix(".json")):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    if beside is not None:
        (tmp_path / "registry.yaml").write_text(beside)
    name, *options = command
    given = [option.format(clips=clips, clip=clips / "videos" / "000000.mp4") for option in options]
    error = refusal(name, tmp_path / "m.onnx", *given)
    assert error.startswith(f"error: {tmp_path / 'm.onnx'}: is of 'mine', which is no model of tsmzoo's own")
    assert error.endswith("--registry FILE")


def test_a_file_is_run_without_any_registry(made: tuple[Path, Path, Path], tmp_path: Path) -> None:
    path, _, clips = made
    for file in (path, path.with_suffix(".json")):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    result = invoke("run", tmp_path / "m.onnx", clips / "videos" / "000000.mp4", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout.splitlines()[-1])["top5"][0]["label"] in motion.CLASSES


@pytest.mark.slow
def test_an_entry_of_ones_own_in_the_place_of_one_of_the_zoo_is_found(
    made: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    """The same id, other weights: the file's own are those beside it."""
    path, own, _ = made
    contract = json.loads(path.with_suffix(".json").read_bytes())
    assert contract["weights"] == "published"
    assert contract["checkpoint"]["sha256"] != ZOO.find(MODEL).sha256
    document = json.loads(own.read_text())
    document["models"][0]["id"] = MODEL
    (tmp_path / "registry.yaml").write_text(json.dumps(document))
    (tmp_path / "model.safetensors").write_bytes((own.parent / "model.safetensors").read_bytes())
    command = ("--to", "onnx", "-o", tmp_path / "m.onnx")
    result = invoke("export", MODEL, "--registry", tmp_path / "registry.yaml", *command)
    assert result.exit_code == 0, result.output
    result = invoke("verify", tmp_path / "m.onnx", "--steps", 2)
    assert result.exit_code == 0, result.output


def of_both(own: Path, folder: Path, **changes: Any) -> Path:
    """Write a registry in which `mine` is as in `own` and MODEL, of another kind than tsmzoo's, too."""
    document = json.loads(own.read_text())
    (mine,) = document["models"]
    document["models"] += [mine | {"id": MODEL, "params": 7} | changes]
    path = folder / "registry.yaml"
    path.write_text(json.dumps(document))
    return path


def test_of_a_registry_beside_the_files_own_model_alone_is_taken(made: tuple[Path, Path, Path], tmp_path: Path) -> None:
    path, own, _ = made
    contract, beside = read_contract(path), of_both(own, tmp_path)
    zoo, found = with_model_of(ZOO, tmp_path / "m.onnx", contract, replace=True)
    assert (zoo.find("mine").sha256, found) == (contract.checkpoint and contract.checkpoint.sha256, beside)
    assert zoo.find(MODEL) == ZOO.find(MODEL)
    assert zoo.label_names(zoo.find("mine")) == contract.labels


def test_an_alias_is_no_model_of_the_file(made: tuple[Path, Path, Path], tmp_path: Path) -> None:
    path, own, _ = made
    of_both(own, tmp_path)
    zoo = msgspec.structs.replace(ZOO, aliases=ZOO.aliases | {"mine": MODEL})
    zoo, _ = with_model_of(zoo, tmp_path / "m.onnx", read_contract(path), replace=True)
    assert zoo.find("mine").id == "mine"


def test_what_the_registry_of_the_command_says_is_not_replaced(made: tuple[Path, Path, Path], tmp_path: Path) -> None:
    """Another model of the same id, of a training of before, and both files in one command."""
    path, own, _ = made
    other = trained(tmp_path / "other", 2)
    given = registry.load(other)
    assert with_model_of(given, own.parent / "m.onnx", read_contract(path), replace=False) == (given, None)
    zoo, found = with_model_of(given, own.parent / "m.onnx", read_contract(path), replace=True)
    assert (found, zoo.find("mine").sha256) == (own, registry.load(own).find("mine").sha256)
    assert "made from other weights" in refusal("verify", path, "--registry", other, "--steps", 2)


def test_a_note_says_which_registry_was_found(remembered: tuple[Path, Path, Path]) -> None:
    path, own, _ = remembered
    result = invoke("verify", path, "--steps", 2)
    assert f"note: {path}: is of mine, as it stands in {own}" in result.stderr.splitlines()
    result = invoke("verify", path, "--steps", 2, "--registry", own)
    assert "as it stands in" not in result.stderr


@pytest.mark.slow
def test_the_classes_of_a_file_are_not_those_of_the_next_model(made: tuple[Path, Path, Path], tmp_path: Path) -> None:
    """Both have one id; labels in another order are other classes, and scores of these do not add up."""
    clips, labels, path = made[2], tmp_path / "labels.txt", tmp_path / "m.onnx"
    labels.write_text("\n".join(reversed(motion.CLASSES)))
    file = ZOO.find(MODEL).file
    result = invoke("export", MODEL, "--to", "onnx", "-o", path, "--weights", file, "--labels", labels)
    assert result.exit_code == 0, result.output
    assert "has other classes" in refusal("eval", path, MODEL, "--data", clips, "--workers", 0)


@pytest.mark.slow
def test_a_loaded_model_remembers_its_registry(
    made: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, own, clips = made
    monkeypatch.setenv("TSMZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(own.parent)
    model = tsmzoo.load("mine", registry="registry.yaml")
    monkeypatch.chdir(tmp_path)
    artifact = tsmzoo.export(model, "onnx", "again.onnx")
    assert artifact.contract == read_contract(tmp_path / "again.onnx")
    assert "contract" not in json.loads(msgspec.json.encode(artifact))
    assert tsmzoo.verify("again.onnx", steps=2).passed
    assert tsmzoo.evaluate(model, clips).model == "mine"
    monkeypatch.chdir(own.parent)
    assert artifact.contract.model == "mine"


def test_a_loaded_file_is_measured_as_its_path(
    remembered: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, own, clips = remembered
    expected = tsmzoo.evaluate(path, clips, workers=0).top1
    assert tsmzoo.evaluate(tsmzoo.load(path), clips).top1 == expected
    for file in (path, path.with_suffix(".json")):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    monkeypatch.setenv("TSMZOO_CACHE", str(tmp_path / "cache"))
    assert tsmzoo.evaluate(tsmzoo.load(tmp_path / path.name, registry=own), clips).top1 == expected
