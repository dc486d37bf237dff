"""Publish a trained model: its weights, and a registry in which it is a model like any other."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml
from torch import nn

from tsmzoo.data.dataset import Dataset
from tsmzoo.evaluation import protocol
from tsmzoo.models.flops import count
from tsmzoo.registry import Entry, LabelMap, Registry, Result
from tsmzoo.registry.recipes import Training
from tsmzoo.system import files
from tsmzoo.training.loop import Fitted
from tsmzoo.training.run import ListName, writing
from tsmzoo.weights import checkpoint

WEIGHTS = "model.safetensors"
REGISTRY = "registry.yaml"
#: Weights beside the published ones, while an earlier registry still names those.
_ASIDE = re.compile(r"\.[0-9a-f]{64}\.safetensors")


def publish(
    zoo: Registry,
    net: nn.Module,
    entry: Entry,
    recipe: Training,
    videos: Dataset,
    held_out: Dataset,
    out: Path,
    fitted: Fitted,
) -> Entry:
    """Write `out`/model.safetensors and `out`/registry.yaml; return the entry in the latter."""
    content = checkpoint.to_bytes(net, entry)
    if entry.mode == "offline":
        entry = msgspec.structs.replace(entry, frames=recipe.frames or entry.frames)
    # The key of its source and labels, no key of the zoo's; cut to the longest allowed.
    key = f"trained-{recipe.name}"[:128]
    base, counted = zoo.find(recipe.model), count(entry)
    file = Path(recipe.weights).name  # without the user's folders
    pretrain, licence = {
        "random": (None, "yours"),
        "published": (f"{base.id} (published weights)", f"yours, on weights under {base.licence}"),
    }.get(recipe.weights, (file, f"yours, on the weights in {file}"))
    trained = msgspec.structs.replace(
        entry,
        dataset=recipe.name,
        labels=key,
        format="tsmzoo",
        source=key,
        urls=(),
        beside=(),
        file=WEIGHTS,
        sha256=hashlib.sha256(content).hexdigest(),
        sha256_prefix=None,
        git_blob_sha1=None,
        pinned=None,
        config=None,
        said_shift=None,
        pretrain=pretrain,
        licence=licence,
        params=round(counted.mparams * 1e6),
        gmacs=round(counted.gmacs, 9),
        published_gmacs=None,
        published_mparams=None,
        results=(
            Result(
                protocol=protocol.default(entry),
                source="the last validation of its training",
                top1=fitted.metrics.val_top1,
                frames=recipe.frames,
            ),
        ),
        recommended=True,
        doubt=(),
        notes=tuple(_notes(fitted, {"training": videos, "validation": held_out})),
    )
    names = videos.classes or tuple(f"class {index}" for index in range(entry.classes))
    registry = {
        "sources": {key: {"name": "trained here", "citation": zoo.sources[base.source].citation}},
        "normalisations": {entry.normalisation: zoo.normalisations[entry.normalisation]},
        "labels": {key: LabelMap(classes=entry.classes, order="the training data's labels.txt", names=names)},
        "models": [{key: value for key, value in msgspec.to_builtins(trained).items() if value not in (None, [], ())}],
    }
    _write(out, content, registry)
    return trained


def _notes(fitted: Fitted, lists: Mapping[ListName, Dataset]) -> Iterator[str]:
    for which, videos in lists.items():
        if skipped := fitted.skipped[which].keys() | fitted.lost[which].keys():
            yield f"{len(skipped)} of the {len(videos)} videos of its {which} list could not be read"


def _write(out: Path, content: bytes, registry: dict[str, Any]) -> None:
    """Write weights and the registry that names them by digest; stopped at any time, both fit together."""
    (model,) = registry["models"]

    def text(file: str) -> str:
        named = registry | {"models": [model | {"file": file}]}
        return yaml.safe_dump(msgspec.to_builtins(named), sort_keys=False, allow_unicode=True, width=120)

    places = out / WEIGHTS, out / REGISTRY
    aside = f".{model['sha256']}.safetensors"
    with writing(places[0]):
        before = [path.read_bytes() if path.exists() else None for path in places]
        if before != [content, text(WEIGHTS).encode()]:
            if before[1] is not None:  # an earlier registry must not name the new weights
                files.write(out / aside, content)
                files.write(places[1], text(aside))
            files.write(places[0], content)
            files.write(places[1], text(WEIGHTS))
        for path in out.iterdir():
            if _ASIDE.fullmatch(path.name):
                files.remove(path)
