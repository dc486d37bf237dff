"""Write a kit for an app: an exported file, a class that runs it, and a test vector."""

from __future__ import annotations

import hashlib
import importlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tsmzoo.artifact import store
from tsmzoo.artifact.contract import Contract, contract_path
from tsmzoo.data import timing
from tsmzoo.errors import ExportError
from tsmzoo.exporting.kit.vector import Vector
from tsmzoo.exporting.plan import Plan
from tsmzoo.inference.smoothing import default_smoothing
from tsmzoo.system import files

_TEMPLATES = Path(__file__).parent / "templates"
#: The class of a format that phones run, and what README.md says of the format, are in `<format>/kit/`.
_CONVERTERS = Path(importlib.import_module("tsmzoo.converters").__path__[0])


def check_plan(plan: Plan, folder: Path) -> None:
    """Raise ExportError if the kit's class could not run what `plan` will write, or `folder` is in its way."""
    if plan.target.softmax:
        raise ExportError(
            "the kit's class makes probabilities of logits itself, after smoothing; leave out --softmax, "
            "or give --no-softmax where a recipe has it"
        )
    if plan.target.state == "implicit":
        raise ExportError("the kit's class holds the states itself; leave out --state implicit, or give explicit")
    kit = folder.resolve()
    for path in (plan.out, contract_path(plan.out)):
        written = path.parent.resolve() / path.name
        if written.is_relative_to(kit) or kit.is_relative_to(written):
            raise ExportError(f"{folder}: {path} is to be written there, too; give a new folder with --kit")


def check(folder: Path) -> None:
    """Raise ExportError if `folder` is not to be written: it holds something, or is no folder."""
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ExportError(f"{folder}: is not empty; give a new folder with --kit")
    except OSError as error:
        raise ExportError(f"{folder}: cannot be read ({error.strerror}); give another folder with --kit") from None


# --- the folder ----------------------------------------------------------------------------------------------------


def write(folder: Path, artifact: Path, contract: Contract, vector: Vector) -> None:
    """Write the kit of the verified file `artifact` to `folder`.

    Raises ExportError if `folder` is not empty or cannot be written; an interrupted run leaves nothing there.
    """
    check(folder)
    folder = folder.resolve()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(folder) as part:
            part.mkdir()
            _fill(part, artifact, contract, vector)
    except OSError as error:
        raise ExportError(
            f"{folder}: cannot be written ({files.reason(error)}); give another folder with --kit"
        ) from None


def _fill(folder: Path, artifact: Path, contract: Contract, vector: Vector) -> None:
    model = folder / artifact.name
    shutil.copytree(artifact, model) if artifact.is_dir() else shutil.copy(artifact, model)
    store.write_contract(contract, contract_path(model))
    _write(folder / "labels.txt", "".join(f"{label}\n" for label in contract.class_names))
    (folder / "vector").mkdir()
    for name, content in _vector_files(model.name, contract, vector).items():
        (folder / "vector" / name).write_bytes(content)
    shutil.copy(_TEMPLATES / "reference.py", folder)
    for name, text in texts(model.name, contract, vector).items():
        _write(folder / name, text)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def _vector_files(model: str, contract: Contract, vector: Vector) -> dict[str, bytes]:
    """Return the header and the raw numbers, row after row, the lowest byte first."""
    content = {
        "input": vector.inputs.astype(_stored(contract)).tobytes(),
        "logits": vector.logits.astype("<f4").tobytes(),
    }
    arrays = {"input": (vector.inputs, _stored(contract).name), "logits": (vector.logits, "float32")}
    header = {
        "model": model,
        "contract": contract_path(Path(model)).name,
        **{
            name: {
                "file": f"{name}.bin",
                "shape": array.shape,
                "dtype": dtype,
                "sha256": hashlib.sha256(content[name]).hexdigest(),
            }
            for name, (array, dtype) in arrays.items()
        },
        "tolerance": vector.tolerance,
        "shown": vector.shown,
        "runtime": vector.runtime,
    }
    text = json.dumps(header, indent=2, ensure_ascii=False) + "\n"
    return {"vector.json": text.encode(), **{f"{name}.bin": raw for name, raw in content.items()}}


def _stored(contract: Contract) -> np.dtype[Any]:
    """Return how inputs lie in the vector: camera values are whole, whatever type a file takes them in."""
    return np.dtype("uint8" if contract.preprocess == "embedded" else "<f4")


# --- the texts -----------------------------------------------------------------------------------------------------


def class_name(model: str) -> str:
    """Return the name that a model's class has: `tsm_mbv2_online` gives TsmMbv2Online."""
    name = "".join(part[:1].upper() + part[1:] for part in re.split(r"[^A-Za-z0-9]+", model))
    return name if name[:1].isalpha() else f"Model{name}"


def texts(model: str, contract: Contract, vector: Vector) -> dict[str, str]:
    """Return the kit's texts by file name, filled from the contract of the file called `model`."""
    values = _values(model, contract, vector)
    filled = {"README.md": _ENVIRONMENT.get_template("README.md").render(values)}
    for template in (_CONVERTERS / contract.format / "kit").glob("class.*"):
        text = _ENVIRONMENT.get_template(template.relative_to(_CONVERTERS).as_posix()).render(values)
        filled[f"{values['class']}{template.suffix}"] = text
    return filled


def _values(model: str, contract: Contract, vector: Vector) -> dict[str, Any]:
    """Return what the templates read, beside what they read from the contract itself."""
    stored, embedded = _stored(contract), contract.preprocess == "embedded"
    return {
        "contract": contract,
        "vector": vector,
        "smoothing": default_smoothing(contract.mode, contract.target_fps),
        "main": contract.main_input,
        "class": class_name(contract.model),
        "file": model,
        "stem": Path(model).stem,
        "contract_file": contract_path(Path(model)).name,
        "megabytes": f"{(contract.bytes or 0) / 1e6:.1f}",
        # What the file was run with before it got its name.
        "verifier": contract.verification.runtime if contract.verification else "none",
        "last": contract.class_names[int(vector.logits[-1].argmax())],
        "slack": timing.CLOCK_SLACK,
        #: How the vector's bytes lie; a file takes them so, or each byte as a float.
        "stored": stored,
        "input_bytes": np.dtype(contract.main_input.dtype).itemsize,
        # The network's channels in the order in which the app gives them.
        "order": "RGB" if embedded else contract.channel_order,
        "online": contract.mode == "online",
        "embedded": embedded,
        "rgb": len(contract.mean) == 3,
        "paced": contract.target_fps is not None,
    }


def _json(text: str) -> str:
    """Return `text` as a string of Swift and, but for `$`, of Kotlin."""
    return json.dumps(text, ensure_ascii=False)


_ENVIRONMENT = Environment(
    loader=FileSystemLoader([_TEMPLATES, _CONVERTERS]),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_ENVIRONMENT.filters["json"] = _json
