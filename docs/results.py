"""The tables of results.md, from the structs that `--json` prints and the comments on their fields."""

from __future__ import annotations

import inspect
import json
import re
import types
from collections.abc import Iterator
from enum import EnumType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec

from tsmzoo.benchmarking.run import BenchmarkRow
from tsmzoo.catalog.cached import CachedFile
from tsmzoo.catalog.check import EntryCheck
from tsmzoo.catalog.doctor import Diagnosis
from tsmzoo.catalog.download import Download
from tsmzoo.catalog.flops import Cost
from tsmzoo.catalog.info import ModelInfo
from tsmzoo.catalog.links import LinkCheck
from tsmzoo.catalog.listing import ModelRow
from tsmzoo.catalog.own_checkpoint import CheckpointInfo
from tsmzoo.cli._results import Pictures, Videos
from tsmzoo.cli._story import Demo
from tsmzoo.evaluation.report import EvaluationResult
from tsmzoo.exporting.card import Pushed
from tsmzoo.exporting.report import Artifact
from tsmzoo.live.answer import AnswerRecord
from tsmzoo.training.train import TrainingResult
from tsmzoo.weights.mirror import Mirrored

#: What each command prints, in the order of `tsmzoo --help`.
RESULTS: dict[str, Any] = {
    "list": list[ModelRow],
    "info MODEL": ModelInfo,
    "info --weights FILE": CheckpointInfo,
    "download": list[Download],
    "flops": Cost,
    "flops --all": list[Cost],
    "data": Videos,
    "train": TrainingResult,
    "export": Artifact,
    "verify": Artifact,
    "eval": EvaluationResult,
    "bench": list[BenchmarkRow],
    "report": Pictures,
    "run": Iterator[AnswerRecord],
    "demo": Demo,
    "cache list": list[CachedFile],
    "cache verify": list[CachedFile],
    "cache prune": list[CachedFile],
    "registry check": list[EntryCheck],
    "doctor": Diagnosis,
    "doctor --links": list[LinkCheck],
    "mirror": list[Mirrored],
    "push": Pushed,
}
#: A comment on a key, and the name of its field.
_COMMENT = re.compile(r"((?:^ +#: .*\n)+)^ +(\w+):", re.MULTILINE)
_WORDS = {
    **{str: "text", int: "integer", float: "number", bool: "true or false", dict: "object", Any: "any value"},
    **{type(None): "null", msgspec.UnsetType: "absent"},
}


def page() -> str:
    """Return the tables: one of each command, and one of each struct in it."""
    parts: list[str] = []
    seen: list[type] = []
    for command, kind in RESULTS.items():
        parts.append(f"## `tsmzoo {command} --json`")
        structs: list[type] = []
        parts.append(f"Result: {_words(kind, structs)}.")
        for each in structs:  # grows while it is read
            if each not in seen:
                seen.append(each)
                parts += [
                    f"### {each.__name__}",
                    (inspect.getdoc(each) or "").partition("\n\nExamples:")[0],
                    _table(each, structs),
                ]
    return "\n\n".join(parts)


def _table(kind: type, structs: list[type]) -> str:
    rows = [
        f"| `{key}` | {_words(type_, structs)} | {meaning} |".replace("  |", " |")
        for key, (type_, meaning) in _keys(kind).items()
    ]
    return "\n".join(["| key | value | meaning |", "| --- | --- | --- |", *rows])


def _keys(kind: type) -> dict[str, tuple[Any, str]]:
    """Return type and meaning of each key of a struct."""
    meanings: dict[str, str] = {}
    for each in reversed(kind.__mro__[:-2]):
        comments = _COMMENT.findall(inspect.getsource(each)) if each is not msgspec.Struct else ()
        meanings |= {
            name: re.sub(r"\bNone\b", "null", " ".join(comment.replace("#: ", "").split()))
            for comment, name in comments
        }
    keys = {
        field.encode_name: (field.type, meanings.get(field.name, "").replace("|", r"\|"))
        for field in msgspec.structs.fields(kind)
    }
    # `info` prints the keys of the registry's entry beside its own.
    return _keys(keys.pop("entry")[0]) | keys if kind is ModelInfo else keys


def _words(kind: Any, structs: list[type]) -> str:
    """Return a type in JSON's words, and add the structs in it to `structs`."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _words(inner[0], structs)
    if origin in (Union, types.UnionType):
        return " or ".join(_words(each, structs) for each in inner)
    if origin is Literal:
        return " or ".join(f"`{json.dumps(each)}`" for each in inner)
    if origin is Iterator:
        return f"a line for each {_words(inner[0], structs)}"
    if origin in (list, tuple, frozenset):
        different = dict.fromkeys(_words(each, structs) for each in inner if each is not ...)
        return f"list of {' and '.join(different)}"
    if origin is dict:
        return f"object of {_words(inner[1], structs)}"
    if isinstance(kind, EnumType):
        return " or ".join(f'`"{each}"`' for each in kind)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        if kind not in structs:
            structs.append(kind)
        return f"[{kind.__name__}](#{kind.__name__.lower()})"
    return _WORDS[kind]
