"""Settle what an export writes and where, before anything long begins."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, get_type_hints

import msgspec

from tsmzoo.artifact import store
from tsmzoo.artifact.contract import Preprocess, State
from tsmzoo.artifact.converter import Converter, converter_of, formats_that
from tsmzoo.callbacks import Notify, silent
from tsmzoo.checks import check
from tsmzoo.errors import ExportError
from tsmzoo.exporting.calibration import CalibrationData, load_calibration
from tsmzoo.formats import format_of
from tsmzoo.registry import Entry
from tsmzoo.registry.recipes import Precision, Target
from tsmzoo.system.quiet import quiet

ELSEWHERE = "make room there, or choose another place with -o"


@dataclass(frozen=True)
class Plan:
    """What is to be written and where: checked before anything long begins."""

    entry: Entry
    #: The recipe, with what was wished for in its place.
    target: Target
    converter: Converter
    out: Path
    dynamic_batch: bool
    #: What a quantized file is calibrated and compared with.
    calibration: CalibrationData | None = None
    #: Operators that stay float in int8.
    keep_float: int = 0


def plan_export(
    entry: Entry,
    target: Target,
    *,
    out: Path | None = None,
    precision: Precision | None = None,
    preprocess: Preprocess | None = None,
    state: State | None = None,
    gpu_safe: bool | None = None,
    softmax: bool | None = None,
    dynamic_batch: bool = False,
    calibrate: Path | None = None,
    images: str | None = None,
    keep_float: int = 0,
    notify: Notify = silent,
) -> Plan:
    """Settle an export of `entry`; what is not given comes from the recipe `target`.

    Raises ExportError or ArtifactError if the format cannot do it, its extra is missing, or the
    place is taken.
    """
    if entry.mode == "offline" and state not in (None, "explicit"):
        raise ExportError(f"{entry.id} is offline and has no states; leave out --state")
    state = "explicit" if entry.mode == "offline" else state
    given = {"precision": precision, "preprocess": preprocess, "state": state, "gpu_safe": gpu_safe, "softmax": softmax}
    wished = {name: value for name, value in given.items() if value is not None}
    kinds = get_type_hints(Target, include_extras=True)
    for name, value in wished.items():
        check(name, value, kinds[name], ExportError)
    check("keep_float", keep_float, Annotated[int, msgspec.Meta(ge=0, le=10_000)], ExportError)
    target = msgspec.structs.replace(target, **wished)
    converter = converter_of(target.format)
    _check_target(entry, target, converter, dynamic_batch=dynamic_batch)
    # Files whose tensors are others have names of their own.
    variant = ("" if target.state == "explicit" else f"-{target.state}") + ("-softmax" if target.softmax else "")
    out = out or Path(f"{entry.id}-{target.precision}{variant}{target.format.suffix}")
    _check_place(out, converter)
    with quiet():
        converter.require("convert", "runtime")
    if keep_float and target.precision != "int8":
        raise ExportError("--keep-float is for int8; leave it out")
    compared = target.precision == "int8" or target.precision in target.bars
    if calibrate is not None and not compared:
        raise ExportError("--calibrate is for int8; leave it out")
    return Plan(
        entry=entry,
        target=target,
        converter=converter,
        out=out,
        dynamic_batch=dynamic_batch,
        calibration=load_calibration(entry, calibrate, images, notify) if compared else None,
        keep_float=keep_float,
    )


def _check_target(entry: Entry, target: Target, converter: Converter, *, dynamic_batch: bool) -> None:
    """Raise ExportError if the format cannot do what `target` says, or the model."""
    format_, precision = target.format, target.precision
    if entry.averages and target.state != "explicit":
        why = "they copy all of it with each frame, for half as much time again and more"
        if target.state == "implicit":
            why = "they are of half precision, in which its running means would stand still"
        raise ExportError(f"{entry.id} takes no {target.state} states: {why}; leave out --state")
    if target.state not in converter.states:
        known = formats_that(lambda each: target.state in each.states)
        raise ExportError(
            f"{target.state} states are for {known}; {format_} files keep none, take --state packed or explicit"
        )
    if target.state == "implicit" and precision == "fp32" and converter.conventions.kept_dtype == "float16":
        raise ExportError("implicit states are of half precision (Core ML knows no others); take fp16 or w8")
    if target.gpu_safe and not converter.gpu_safe:
        raise ExportError(f"--gpu-safe is for {formats_that(lambda each: each.gpu_safe)}; leave it out")
    if target.softmax and precision == "int8":
        raise ExportError("probabilities have 256 steps in int8; take --no-softmax, and make them of the logits")
    if dynamic_batch and not converter.dynamic_batch:
        known = formats_that(lambda each: each.dynamic_batch)
        raise ExportError(f"--dynamic-batch is for {known}; {format_} files take one clip or frame a call")
    if precision not in target.tolerance:
        raise ExportError(f"{format_} is not written in {precision} yet; choose {' or '.join(target.tolerance)}")
    if precision in target.bars and precision in converter.precisions:
        raise ExportError(
            f"a bar for {precision} would compare a {format_} file with itself; take it out of the recipe"
        )


def _check_place(out: Path, converter: Converter) -> None:
    """Raise ExportError or ArtifactError if `out` cannot be written, or is something else's place."""
    try:
        if out.suffix != converter.format.suffix:
            raise ExportError(f"{out}: must end in {converter.format.suffix}")
        format_of(out)
        if not out.parent.is_dir():
            raise ExportError(f"{out}: its folder does not exist; make {out.parent} first")
        if out.exists() and not (out.is_dir() if converter.is_folder else out.is_file()):
            raise ExportError(f"{out}: is in the way; move it first")
        store.check_way(out)
    except OSError as error:
        raise ExportError(f"{out}: cannot be written ({error.strerror}); {ELSEWHERE}") from None
