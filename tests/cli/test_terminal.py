"""What reaches a terminal is one clean line where a line is meant, and JSON holds all, whatever names hold."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stdout
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from tsmzoo import text as text_
from tsmzoo.cli import _terminal as terminal
from tsmzoo.cli import app
from tsmzoo.errors import ZooError
from tsmzoo.registry import paths

#: Clears the screen, rings, goes back, turns text around, ends lines as Unicode does, is half a character.
HOSTILE = "\x1b[2J\x07\r\n\x9b\u202e\u2028\x7f\U000e0041\udcff"
SHOWN = r"\x1b[2J\x07\r\n\x9b\u202e\u2028\x7f\U000e0041\xff"


def obeyed(text: str) -> set[str]:
    """Return the characters of a text that a terminal obeys, but for the ends of lines."""
    return {char for char in text if not (char.isprintable() or char in "\n\u3000\xa0")}


def test_control_characters_are_shown() -> None:
    assert text_.one_line(f"a{HOSTILE}b") == f"a{SHOWN}b"
    assert text_.one_line("élan vital – 手 🙂 b\\n") == "élan vital – 手 🙂 b\\n"


@given(st.text(st.characters()), st.integers(10, 40))
def test_any_text_becomes_a_line_of_bounded_length(text: str, most: int) -> None:
    line = text_.one_line(text, most)
    assert len(line) <= most
    assert not set(line) & set("\n\r\x1b\x7f\u2028")
    line.encode()  # no halves
    if text.isascii() and text.isprintable() and len(text) <= most:
        assert line == text


def test_a_long_message_keeps_both_ends() -> None:
    line = text_.one_line(f"error: {'x' * 140_000}; give another file")
    assert len(line) == text_.LINE
    assert line.startswith("error: xxx")
    assert line.endswith("xxx; give another file")
    assert " … " in line


def test_what_an_error_says_is_one_line_with_its_words_apart() -> None:
    assert text_.of_error(ValueError("it is\n  no \x1b[2J file")) == r"it is no \x1b[2J file"
    assert text_.of_error(KeyError()) == "KeyError"
    assert len(text_.of_error(ValueError("x" * 10**6))) == text_.ERROR
    assert text_.of_error(ValueError("x" * 10**6), 40).endswith("xxx")


def test_a_table_stays_one() -> None:
    columns: list[text_.Column[tuple[str, int]]] = [("id", "left", itemgetter(0)), ("n", "right", itemgetter(1))]
    lines = text_.table(columns, [("a\nb" + "x" * 100_000, 1), ("c", 22)]).split("\n")
    assert len(lines) == 4
    assert {len(line) for line in lines} == {text_.CELL + 4}
    assert lines[2].startswith(r"a\nbxxx")
    assert lines[2].endswith(" 1")


@given(st.recursive(st.none() | st.text(st.characters()) | st.integers(), lambda inner: st.lists(inner)))
def test_json_loses_nothing(value: Any) -> None:
    for encoding in ("utf-8", "latin-1", "ascii"):
        stream = io.TextIOWrapper(io.BytesIO(), encoding, newline="\n")
        with redirect_stdout(stream):
            terminal.print_json({"value": value})
        stream.seek(0)
        text = stream.read()
        assert not any(char < " " or "\x7f" <= char < "\xa0" or char in HOSTILE[4:] for char in text.replace("\n", ""))
        assert json.loads(text) == {"value": value}


def test_json_knows_no_infinity(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.print_json({"a": [float("nan"), 1.5], "b": float("-inf")})
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == {"a": [None, 1.5], "b": None}


def test_an_error_is_one_line() -> None:
    result = CliRunner().invoke(app, ["info", f"{HOSTILE}{'x' * 50_000}"])
    assert result.exit_code == 1
    assert result.stderr.startswith("error: no model is called ")
    assert result.stderr.endswith("`tsmzoo list --all` shows every id\n")
    assert result.stderr.count("\n") == 1
    assert len(result.stderr) <= text_.LINE + 1
    assert not obeyed(result.stderr)


@pytest.mark.parametrize("words", [["--{}"], ["{}"], ["list", "--{}"], ["export", "m", "--to", "{}"]])
def test_wrong_usage_is_short(words: list[str]) -> None:
    long = f"\x1b[2J\x9b{'x' * 50_000}"
    result = CliRunner().invoke(app, [word.format(long) for word in words])
    assert result.exit_code == 2
    assert len(result.stderr) < 2500
    assert not obeyed(result.stderr)


def registry(folder: Path, text: str) -> str:
    """Return a registry of one model whose every text is `text`."""
    zoo = yaml.safe_load((paths.DATA / "registry.yaml").read_text(encoding="utf-8"))
    entry = next(entry for entry in zoo["models"] if entry["id"] == "tsm_mbv2_motion_online")
    entry |= {"id": "mine", "licence": text, "notes": [text], "doubt": [text], "labels": "mine", "dataset": text}
    entry["file"] = str(paths.PACKAGE / entry["file"])
    names = [f"{text}{number}" for number in range(3)]
    labels = {"mine": {"classes": len(names), "order": text, "names": names}}
    path = folder / f"{len(text)}.yaml"
    document = {"models": [entry], "labels": labels, "aliases": {text[:100]: "mine"}}
    path.write_text(yaml.dump(document, Dumper=yaml.CSafeDumper), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("command", ["list", pytest.param("info", marks=pytest.mark.slow)])
def test_hostile_texts_of_a_registry(command: str, tmp_path: Path) -> None:
    bad = HOSTILE[:-1] + "y" * 5000

    def told(text: str, *options: str) -> str:
        words = [command, "mine", *options, "--registry", registry(tmp_path, text)]
        return CliRunner().invoke(app, words, catch_exceptions=False).stdout

    text = told(bad)
    assert text.count("\n") == told("plain").count("\n") > 3
    assert not obeyed(text)
    assert max(map(len, text.split("\n"))) <= text_.LINE
    document = json.loads(told(bad, "--json"))
    assert (document[0] if command == "list" else document)["licence"] == bad


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr("tsmzoo.registry.load", fail)
    for failure in (ValueError("bug"), OSError(22, "bug", "name"), OSError(13, "bug"), FileNotFoundError(2, "b", "n")):
        assert CliRunner().invoke(app, ["list"]).exception is failure


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (OSError(28, "No space left on device", "a\nb"), r"error: a\nb: No space left on device; make room"),
        (PermissionError(13, "Permission denied", "f"), "error: f: Permission denied; choose another place"),
        (OSError(24, "Too many open files"), "error: Too many open files; allow more (ulimit -n)"),
        (ZooError("one\ntwo"), r"error: one\ntwo"),
    ],
)
def test_what_a_place_does(failure: Exception, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr("tsmzoo.registry.load", fail)
    result = CliRunner().invoke(app, ["list"])
    assert (result.exit_code, result.stderr) == (1, f"{said}\n")


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes")
@pytest.mark.slow
def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    name = os.fsencode(tmp_path) + b"/r\xff\x1bport"
    command = [sys.executable, "-m", "tsmzoo", "report", name]
    text = subprocess.run(command, capture_output=True, check=True).stdout
    assert text.splitlines()[0] == os.fsencode(tmp_path) + rb"/r\xff\x1bport/accuracy-kinetics400.svg"
    env = os.environ | {"PYTHONIOENCODING": "ascii"}
    found = json.loads(subprocess.run([*command, "--json"], env=env, capture_output=True, check=True).stdout)["files"]
    assert {os.fsencode(path) for path in found} == {name + b"/" + entry for entry in os.listdir(name)}
