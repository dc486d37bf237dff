"""The JSON schema for editors."""

from __future__ import annotations

import json
import re

from tsmzoo.registry import SCHEMA, json_schema, paths


def test_schema_is_that_of_the_structs() -> None:
    assert SCHEMA.read_text(encoding="utf-8") == json_schema.text(), "make readme writes it"


def test_schema_knows_keys_and_what_they_mean() -> None:
    entry = json.loads(json_schema.text())["$defs"]["Entry"]
    assert "shift" in entry["properties"]
    assert "said_shift" not in entry["properties"]
    assert entry["additionalProperties"] is False
    assert set(entry["required"]) >= {"id", "licence", "params"}
    assert not {"mode", "classes", "urls"} & set(entry["required"])
    assert entry["properties"]["size"]["default"] == 224
    assert entry["properties"]["size"]["description"].startswith("Side of the square input")
    assert r"\Z" not in json_schema.text(), "ECMAScript takes it for a Z"


def test_registry_names_its_schema() -> None:
    first = (paths.DATA / "registry.yaml").read_text(encoding="utf-8").splitlines()[0]
    named = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first)
    assert named is not None
    assert (paths.DATA / named[1]).samefile(SCHEMA)
