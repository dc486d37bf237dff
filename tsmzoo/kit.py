"""A folder for a mobile engineer: an exported file, a class that runs it, and what it must answer to what.

The texts are templates of `tsmzoo/templates/`, filled from the contract: `%%{name}` is a value, and the lines between
`%%if name …` and `%%end` stay where one of the names holds, those after `%%else` where none does.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
import string
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tsmzoo import artifact as artifact_
from tsmzoo import files, motion, sampling, video, views
from tsmzoo.artifact import Array, Contract, feed
from tsmzoo.converter import Converter, Runner
from tsmzoo.decide import usual
from tsmzoo.describe import describe
from tsmzoo.errors import ExportError
from tsmzoo.export import Plan
from tsmzoo.formats import Format
from tsmzoo.quiet import quiet
from tsmzoo.registry import Registry, paths
from tsmzoo.runner import TorchRunner, run_clip, stream
from tsmzoo.verify import moving_noise
from tsmzoo.weights import Network

TEMPLATES = paths.PACKAGE / "templates"
#: The class of each format that phones run; an ONNX file comes with the Python loop alone.
_CLASSES = {Format.TFLITE: "class.kt", Format.COREML: "class.swift"}

#: Frames that a stream is fed at the least: converters have dropped states, and the first step still agrees.
_STEPS = 16
#: What the models of the `motion` task are shown: a thing that comes closer, and as another clip one that opens.
_SEED, _SCENES = 3, (2, 18)
#: What two processors may differ by in 8 bits, of the logits' range: less than what a file may differ by from torch.
_ROUNDING = 0.1
#: What ignores the order of frames, or has lost the shift, gives both the same answer.
_BOTH_WAYS = "forwards and then backwards"


@dataclass(frozen=True)
class Vector:
    """What a file is fed, and what it must answer."""

    #: A stream's frames, or clips: N, then the file's own main input.
    inputs: Array
    #: After each frame, or of each clip: N, classes.
    logits: Array
    #: What the inputs show.
    shown: str
    #: What gave the logits.
    runtime: str
    #: Largest difference allowed, relative to the range of the logits.
    tolerance: float


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
    for path in (plan.out, artifact_.contract_path(plan.out)):
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


# --- the test vector -----------------------------------------------------------------------------------------------


def vector(contract: Contract, answering: tuple[Runner, Contract]) -> Vector:
    """Return inputs of the file that `contract` describes, and what `answering` gives: the file itself, or torch."""
    assert contract.verification is not None
    pixels, shown = _pixels(contract)
    runner, layout = answering
    if contract.mode == "online":
        given = [feed(frame[None], contract) for frame in pixels]
        answers = [out["logits"][0] for out in stream(runner, layout, (frame[None] for frame in pixels))]
    else:
        given = [feed(clip[None], contract) for clip in pixels]
        answers = [run_clip(runner, layout, clip[None])["logits"][0] for clip in pixels]
    tolerance = min(contract.verification.tolerance, _ROUNDING)
    return Vector(np.stack(given), np.stack(answers), shown, runner.runtime, tolerance)


def answering(
    registry: Registry, network: Network, artifact: Path, contract: Contract, converter: Converter
) -> tuple[Runner, Contract]:
    """Return what gives the expected logits: the file itself or, where nothing here runs it, its network in torch."""
    with quiet():
        runner = converter.load(artifact, contract)
    if runner is not None:
        return runner, contract
    plain = describe(registry, network, dynamic_batch=True)
    return TorchRunner(network, plain), plain


def _pixels(contract: Contract) -> tuple[Array, str]:
    """Return camera values, 0…255, and what they show: frames, T, C, H, W, or clips, N, T, C, H, W."""
    channels, length = len(contract.mean), _STEPS if contract.mode == "online" else contract.frames
    if contract.dataset == "motion" and channels == 3:
        scene, other = (_scene(contract, index) for index in _SCENES)
        if contract.mode == "online":
            every = max(1, round(motion.FPS / (contract.target_fps or motion.FPS)))
            there_and_back = np.concatenate([scene[::every], scene[::-1][::every]])
            times = math.ceil(_STEPS / len(there_and_back))
            return np.concatenate([there_and_back] * times), f"a scene of the motion task, {_BOTH_WAYS}"
        indices = sampling.clip(motion.FRAMES, length, contract.stride)
        clips = [scene[indices], scene[indices][::-1], other[indices]]
        return np.stack(clips), f"a scene of the motion task, {_BOTH_WAYS}, and another scene"
    noise = moving_noise(0, length, channels, contract.size)
    if contract.mode == "online":
        return noise, "noise that moves"
    other = moving_noise(1, length, channels, contract.size)
    return np.stack([noise, noise[::-1], other]), f"noise that moves, {_BOTH_WAYS}, and other noise"


def _scene(contract: Contract, index: int) -> Array:
    from PIL import Image

    frames, _ = motion.scene(index, _SEED)
    return np.stack([views.prepared(Image.fromarray(frame), contract.resize, contract.size) for frame in frames])


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
    artifact_.write_contract(contract, artifact_.contract_path(model))
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
        "contract": artifact_.contract_path(Path(model)).name,
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
    smoothing = usual(contract.mode, contract.target_fps)
    return {
        "class": class_name(contract.model),
        "model": contract.model,
        "file": model,
        "stem": Path(model).stem,
        "contract": artifact_.contract_path(Path(model)).name,
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
        "slack": video.CLOCK_SLACK,
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
