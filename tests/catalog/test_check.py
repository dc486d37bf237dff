"""`tsmzoo registry check`: a file's own figures against those that are counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from typer.testing import CliRunner

from tsmzoo import registry
from tsmzoo.cli import app
from tsmzoo.registry import Entry, paths

ZOO = registry.load()
FIGURES = ("params", "gmacs", "states")


def written(entry: Entry, **changes: Any) -> dict[str, Any]:
    """Return an entry as a user writes it, but for keys that are changed to None."""
    item = msgspec.to_builtins(entry) | {"id": f"my_{entry.id}"} | changes
    return {key: value for key, value in item.items() if value not in (None, [], ())}


def write(path: Path, *items: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump({"models": list(items)}, sort_keys=False), encoding="utf-8")
    return path


def check(path: Path, *options: str) -> Any:
    return CliRunner().invoke(app, ["registry", "check", str(path), *options])


@pytest.mark.slow
def test_entries_of_the_project_pass(tmp_path: Path) -> None:
    items = [written(entry) for entry in ZOO.models if entry.dataset == "motion"]
    result = check(write(tmp_path / "own.yaml", *items))
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [f"{item['id']}: as counted" for item in items]


def test_a_new_entry_of_the_project_itself_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zoo = registry.document(paths.DATA / "registry.yaml")
    entry = next(item for item in zoo["models"] if item["id"] == "tsm_mbv2_motion")
    lacking = {key: value for key, value in entry.items() if key not in (*FIGURES, "results")}
    path = tmp_path / "registry.yaml"
    path.write_text(yaml.safe_dump(zoo | {"models": [lacking], "aliases": {}}), encoding="utf-8")
    monkeypatch.setattr(paths, "DATA", tmp_path)
    result = check(path)
    assert result.stdout.startswith("# tsm_mbv2_motion: lacks params, gmacs\n    params: 414062\n")


@pytest.mark.parametrize("name", ["tsm_mbv2_motion", "tsm_mbv2_motion_online"])
def test_what_is_printed_is_what_the_entry_lacks(name: str, tmp_path: Path) -> None:
    entry = ZOO.find(name)
    path = write(tmp_path / "own.yaml", written(entry, **dict.fromkeys(FIGURES)))
    refused = CliRunner().invoke(app, ["list", "--registry", str(path)])
    assert refused.exit_code == 1
    assert f"lacks `params` and `gmacs`; `tsmzoo registry check {path}`" in refused.stderr

    result = check(path)
    assert result.exit_code == 1
    assert result.stderr == f"error: {path}: 1 of 1 entries are incomplete or wrong: my_{name}\n"
    # Pasted, with all that is said around it, it makes the entry whole.
    mended = "models:\n  - " + yaml.safe_dump(written(entry, **dict.fromkeys(FIGURES))).strip().replace("\n", "\n    ")
    path.write_text(f"{mended}\n{result.stdout}", encoding="utf-8")
    assert registry.load(path).find(f"my_{name}") == msgspec.structs.replace(entry, id=f"my_{name}")
    assert check(path).exit_code == 0


def test_figures_that_are_wrong_are_told(tmp_path: Path) -> None:
    entry = ZOO.find("tsm_mbv2_motion_online")
    rounded, wrong = float(f"{entry.gmacs:.4g}"), {"params": 3, "gmacs": entry.gmacs * 1.002, "states": [[1, 2, 3, 4]]}
    path = write(tmp_path / "own.yaml", written(entry, gmacs=rounded), written(entry, id="other", **wrong))
    result = check(path)
    assert result.exit_code == 1
    assert result.stderr == f"error: {path}: 1 of 2 entries are incomplete or wrong: other\n"
    first, second, *rest = result.stdout.splitlines()
    assert first == "my_tsm_mbv2_motion_online: as counted"
    assert second.startswith("# other: params is 3, ")
    states = [list(shape) for shape in entry.states]
    assert yaml.safe_load("\n".join(rest)) == {"params": entry.params, "gmacs": entry.gmacs, "states": states}


def test_json(tmp_path: Path) -> None:
    entry = ZOO.find("tsm_mbv2_motion")
    result = check(write(tmp_path / "own.yaml", written(entry, params=3, gmacs=None)), "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == [
        {
            "id": "my_tsm_mbv2_motion",
            "counted": {"params": entry.params, "gmacs": entry.gmacs, "states": []},
            "missing": ["gmacs"],
            "wrong": {"params": 3},
        }
    ]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"colour": 3}, "colour"),
        ({"labels": "cats"}, "labels 'cats'"),
        ({"frames": 0}, "$.frames"),
        ({"id": 3}, "$.id"),
    ],
)
def test_what_no_registry_may_say_is_refused_as_ever(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    path = write(tmp_path / "own.yaml", written(ZOO.find("tsm_mbv2_motion"), **changes))
    result = check(path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"error: {path}: entry ")
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert check(tmp_path / "none.yaml").stderr.startswith(f"error: {tmp_path / 'none.yaml'}: cannot be read")
