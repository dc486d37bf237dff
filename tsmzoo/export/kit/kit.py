"""A folder for a mobile engineer: an exported file, a class that runs it, and what it must answer to what."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tsmzoo.artifact import store
from tsmzoo.artifact.contract import Contract, contract_path
from tsmzoo.data import timing
from tsmzoo.errors import ExportError
from tsmzoo.export.export import Plan
from tsmzoo.export.kit.vector import Vector
from tsmzoo.formats import Format
from tsmzoo.inference.smoothing import default_smoothing
from tsmzoo.system import files

TEMPLATES = Path(__file__).parent / "templates"
#: The class of each format that phones run; an ONNX file comes with the Python loop alone.
_CLASSES = {Format.TFLITE: "class.kt", Format.COREML: "class.swift"}


def check_plan(plan: Plan, folder: Path) -> None:
    """Raise ExportError where the kit's class could not run what `plan` will write, or `folder` is in its way."""
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
    """Raise ExportError where `folder` is not to be written: it holds something, or is no folder."""
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ExportError(f"{folder}: is not empty; give a new folder with --kit")
    except OSError as error:
        raise ExportError(f"{folder}: cannot be read ({error.strerror}); give another folder with --kit") from None


# --- the folder ----------------------------------------------------------------------------------------------------


def write(folder: Path, artifact: Path, contract: Contract, vector: Vector) -> None:
    """Write the kit of the verified file `artifact` to `folder`.

    Raises ExportError where `folder` is not empty or cannot be written; an interrupted run leaves nothing there.
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
    shutil.copy(TEMPLATES / "reference.py", folder)
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
    values, flags = _values(model, contract, vector), _flags(contract)
    filled = {"README.md": _fill_in("README.md", values, flags)}
    if template := _CLASSES.get(Format(contract.format)):
        filled[f"{values['class']}{Path(template).suffix}"] = _fill_in(template, values, flags)
    return filled


def _flags(contract: Contract) -> set[str]:
    """Return the conditions that hold, by the names that templates ask for."""
    main = contract.main_input
    stored = _stored(contract).name
    conditions = {
        contract.format: True,
        contract.mode: True,
        contract.preprocess: True,
        # How the vector's bytes become the file's input: as they lie, or each byte a float.
        "image": main.type == "image",
        "bytes": main.dtype == "uint8",
        "floats": main.dtype == stored == "float32",
        "widened": main.dtype != stored,
        "rgb": len(contract.mean) == 3,
        "paced": contract.target_fps is not None,
        "dense": contract.stride is not None,
        "packed": contract.state == "packed",
        "gpu_safe": contract.gpu_safe,
        # Core ML itself runs on macOS alone.
        "interpreted": contract.format == "coreml" and not _verifier(contract).startswith("Core ML"),
        "random": contract.weights == "random",
        "doubted": bool(contract.doubt),
        "fp16": contract.precision == "fp16",
        "sigmoid": contract.activation == "sigmoid",
    }
    return {name for name, holds in conditions.items() if holds}


def _verifier(contract: Contract) -> str:
    """Return what the file was run with before it got its name."""
    return contract.verification.runtime if contract.verification else "none"


def _values(model: str, contract: Contract, vector: Vector) -> dict[str, object]:
    main = contract.main_input
    kotlin = Format(contract.format) == Format.TFLITE
    quoted, indent = (_kotlin_string, 12 * " ") if kotlin else (_swift_string, 8 * " ")
    # The network's channels, by their place in a camera's RGB.
    order = (2, 1, 0) if contract.preprocess == "external" and contract.channel_order == "BGR" else (0, 1, 2)
    rows = [(tensor, "in") for tensor in contract.inputs] + [(tensor, "out") for tensor in contract.outputs]
    smoothing = default_smoothing(contract.mode, contract.target_fps)
    return {
        "class": class_name(contract.model),
        "model": contract.model,
        "file": model,
        "stem": Path(model).stem,
        "contract": contract_path(Path(model)).name,
        "sha256": contract.sha256,
        "version": contract.versions["tsmzoo"],
        "megabytes": f"{(contract.bytes or 0) / 1e6:.1f}",
        "precision": contract.precision,
        "licence": contract.licence,
        "main": main.name,
        "meaning": main.meaning,
        "layout": main.layout,
        "input_shape": ", ".join(map(str, main.lengths())),
        "input_product": " * ".join(map(str, main.lengths())),
        "input_bytes": np.dtype(main.dtype).itemsize,
        "stored_bytes": _stored(contract).itemsize,
        "logits": contract.outputs[0].name,
        "classes": contract.classes,
        "frames": contract.frames,
        "size": contract.size,
        "resize": contract.resize,
        "fps": contract.target_fps,
        "slack": timing.CLOCK_SLACK,
        "stride": contract.stride,
        "mean": ", ".join(map(repr, contract.mean)),
        "std": ", ".join(map(repr, contract.std)),
        "order": contract.channel_order if contract.preprocess == "external" else "RGB",
        "shifts": ", ".join(str(16 - 8 * place) for place in order),  # in an ARGB integer
        "offsets": ", ".join(str(2 - place) for place in order),  # in the bytes B, G, R, A
        "window": smoothing.window,
        "threshold": smoothing.threshold,
        "hold": smoothing.hold,
        "steps": len(vector.inputs),
        "tolerance": f"{vector.tolerance:g}",
        "shown": vector.shown,
        "runtime": vector.runtime,
        "verifier": _verifier(contract),
        "last": contract.class_names[int(vector.logits[-1].argmax())],
        "doubts": "\n".join(f"- {doubt}" for doubt in contract.doubt),
        "states": "\n".join(_states(contract, kotlin=kotlin)),
        "state_count": len(contract.parts or contract.states),
        "state": re.sub(r"_\d+$", "", contract.inputs[-1].name),
        "label_lines": ",\n".join(f"{indent}{quoted(label)}" for label in contract.class_names),
        "tensors": "\n".join(
            f"| {way} | `{tensor.name}` | {' × '.join(map(str, tensor.lengths()))} | "
            f"{'image' if tensor.type == 'image' else tensor.dtype} | {tensor.meaning} |"
            for tensor, way in rows
        ),
    }


def _states(contract: Contract, *, kotlin: bool) -> Iterator[str]:
    """Yield a line of source for each state: its input, the output that becomes it, its shape."""
    tensors = {tensor.name: tensor for tensor in contract.inputs}
    for index, pair in enumerate(contract.states):
        shape = tensors[pair.input].lengths()
        comma = "," if index + 1 < len(contract.states) else ""
        if kotlin:
            yield f'            State("{pair.input}", "{pair.output}", {" * ".join(map(str, shape))}){comma}'
        else:
            yield f'        ("{pair.input}", "{pair.output}", {list(shape)}){comma}'


def _kotlin_string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("$", "\\$")


def _swift_string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


class _Template(string.Template):
    # `$` and `@` mean something in Kotlin and Swift.
    delimiter = "%%"


def _fill_in(template: str, values: dict[str, object], flags: set[str]) -> str:
    lines = (TEMPLATES / template).read_text(encoding="utf-8").splitlines(keepends=True)
    return _Template("".join(_kept(lines, flags))).substitute(values)


def _kept(lines: list[str], flags: set[str]) -> Iterator[str]:
    """Yield the lines whose conditions hold; conditions may stand in one another."""
    keep = [True]
    for line in lines:
        word, *wanted = line.split() or [""]
        if word == "%%if":
            keep.append(bool(flags.intersection(wanted)))
        elif word == "%%else":
            keep[-1] = not keep[-1]
        elif word == "%%end":
            keep.pop()
        elif all(keep):
            yield line
