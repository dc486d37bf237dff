"""`info`: everything about a model, and the nearest names of none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tsmzoo import registry
from tsmzoo.catalog import info
from tsmzoo.cli import app

ZOO = registry.load()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, prog_name="tsmzoo")


def output(*arguments: str) -> str:
    """Return what a command that must succeed prints; it says nothing beside it."""
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return result.stdout


def assert_fails(result: Result, *words: str) -> None:
    """One line on stderr, `error: …`, nothing on stdout, exit 1."""
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit), "a traceback"
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    for word in words:
        assert word in result.stderr


@pytest.mark.parametrize("entry", ZOO.models, ids=lambda entry: entry.id)
def test_info_has_everything(entry: registry.Entry) -> None:
    found = info.info(ZOO, entry)
    text, source = info.text(found), ZOO.sources[entry.source]
    file = entry.urls or (Path(entry.file or "").name,)
    origin = (source.repository or source.name, source.citation, entry.licence)
    for part in (entry.id, *origin, *file, *entry.doubt, *entry.notes):
        assert part in text
    for result in entry.results:
        assert result.source in text
        assert f"top-1 {result.top1}" in text or f"mAP {result.map}" in text
    assert ("\n  doubtful\n" in text) == bool(entry.doubt)
    assert found.input.shape == [entry.frames, entry.channels, entry.size, entry.size]
    assert len(found.labels.names or ()) in {0, entry.classes}


def test_info_prints_the_text() -> None:
    """Of a doubtful entry, whose doubt must be seen."""
    entry = ZOO.find("tsn_r101_k400")
    document, text = json.loads(output("info", entry.id, "--json")), output("info", entry.id)
    assert text == info.text(info.info(ZOO, entry)) + "\n"
    assert document["doubt"] == list(entry.doubt) != []
    assert entry.doubt[0] in text


def test_info_of_an_online_model_tells_its_states() -> None:
    document = json.loads(output("info", "tsm_mbv2_online", "--json"))
    assert document["states"][0] == [1, 3, 56, 56]
    assert document["states"][-1] == [1, 20, 7, 7]
    assert len(document["states"]) == 10
    assert "1x3x56x56" in output("info", "tsm_mbv2_online")
    assert document["shift"] == "unidirectional"
    assert json.loads(output("info", "tsm_r50_sthv2", "--json"))["states"] == []


def test_info_takes_an_alias_and_shows_it() -> None:
    assert output("info", "tsm_r50_sthv2") == output("info", "tsm_r50_sthv2_8f_mit")
    assert output("info", "tsm_r50_sthv2").splitlines()[0] == "tsm_r50_sthv2_8f_mit (tsm_r50_sthv2)"


def test_info_explains_a_protocol() -> None:
    result = json.loads(output("info", "tsm_r50_k400_8f_dense", "--json"))["results"][0]
    assert result["protocol"] == "mit_dense10_fullres3"
    assert "10 clips of 8 frames" in result["measured"]
    assert "30 views" in result["measured"]


@pytest.mark.parametrize("command", ["info", "flops", "download"])
def test_unknown_model_gets_the_nearest(command: str) -> None:
    assert_fails(run(command, "tsm_r50_sthv22"), "'tsm_r50_sthv22'", "did you mean", "tsm_r50_sthv2")
    assert_fails(run(command, "qqqqqqqq"), "tsmzoo list --all")


def test_own_registry(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("aliases: {mine: tsm_mbv2_online}\n")
    assert "tsm_mbv2_online" in output("list", "mine", "--registry", str(own))
    assert json.loads(output("info", "mine", "--registry", str(own), "--json"))["id"] == "tsm_mbv2_online"
    assert_fails(run("info", "mine"), "'mine'")


def test_wrong_registry_is_one_line(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    assert_fails(run("list", "--registry", str(own)), str(own), "cannot be read")
    own.write_text("models: [{id: x}]\n")
    assert_fails(run("list", "--registry", str(own)), str(own), "'x'", "family")
    own.write_text("models: [\n")
    assert_fails(run("info", "tsm_mbv2_online", "--registry", str(own)), str(own), "YAML")
