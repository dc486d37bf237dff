"""Files for phones: export, verify."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tsmzoo import terminal
from tsmzoo.cli.options import (
    AllowMismatch,
    Classes,
    Clip,
    Frames,
    Images,
    Json,
    Labels,
    Model,
    RegistryFile,
    Seed,
    Shift,
    Size,
    Weights,
    WeightsFormat,
    choice,
    frames_of,
    load,
    names,
    obtained,
    own_checkpoint,
    place,
    video_of,
    with_model_of,
)
from tsmzoo.cli.root import app
from tsmzoo.errors import ZooError
from tsmzoo.formats import Format

if TYPE_CHECKING:
    from tsmzoo.artifact import Contract, Verification


@app.command()
def export(
    model: Model,
    to: Annotated[Format | None, typer.Option(help="The format to write.")] = None,
    recipe_name: Annotated[
        str | None,
        typer.Option("--recipe", metavar="NAME", help="android, ios, or a .yaml file of your own, in place of --to."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="PATH", help="Default: <model>-<precision>.<ending>")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="fp32, fp16, int8 (weights and activations) or w8 (weights).")
    ] = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Videos, or folders of images, that int8 takes its ranges from; the bundled have theirs.",
            **place,
        ),
    ] = None,
    keep_float: Annotated[
        int, typer.Option(help="How many of the operators that int8 costs most stay float.", min=0, max=10_000)
    ] = 0,
    preprocess: Annotated[
        str | None, typer.Option(help="embedded (default): camera values in; external: normalised values in.")
    ] = None,
    state: Annotated[
        str | None,
        typer.Option(
            help="explicit (default): states are inputs and outputs; packed: one of each; implicit: kept (coreml)."
        ),
    ] = None,
    gpu_safe: Annotated[
        bool | None,
        typer.Option("--gpu-safe/--no-gpu-safe", help="Outputs of their own, which no Android GPU corrupts (tflite)."),
    ] = None,
    softmax: Annotated[
        bool | None,
        typer.Option("--softmax/--no-softmax", help="Probabilities, not logits; sigmoids where several may hold."),
    ] = None,
    dynamic_batch: Annotated[bool, typer.Option("--dynamic-batch", help="Any number of clips a call (onnx).")] = False,
    weights: Weights = None,
    seed: Seed = 0,
    weights_format: WeightsFormat = None,
    classes: Classes = None,
    labels: Labels = None,
    shift: Shift = None,
    allow_shift_mismatch: AllowMismatch = False,
    size: Size = None,
    frames: Frames = None,
    clip: Clip = None,
    images: Images = None,
    kit: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="A new folder for an app: the file, a class that runs it (of logits, not --softmax), a test vector.",
        ),
    ] = None,
    registry_file: RegistryFile = None,
    json: Json = False,
) -> None:
    """Convert a model, with its contract beside it, verified before it gets its name."""
    choice("--precision", precision, ("fp32", "fp16", "w8", "int8"))
    choice("--preprocess", preprocess, ("embedded", "external"))
    choice("--state", state, ("explicit", "packed", "implicit"))
    if to is None and recipe_name is None:
        raise typer.BadParameter("give --to onnx, tflite or coreml, or a --recipe", param_hint="--to")
    if to is not None and recipe_name is not None:
        raise typer.BadParameter("a recipe says which format it writes; leave out --to", param_hint="--to")
    own_checkpoint(weights, classes, labels, shift)
    start = time.perf_counter()
    zoo = load(registry_file)
    from tsmzoo import export as exporter
    from tsmzoo import kit as kit_
    from tsmzoo import recipe, registry
    from tsmzoo import weights as weights_
    from tsmzoo.subject import resized

    zoo = registry.with_classes(zoo, model, classes, names(labels, classes))
    entry = zoo.find(model)
    entry = resized(entry, frames_of(entry, frames), size)
    target = recipe.target(to or recipe_name or "")
    if kit is not None:
        kit_.check(kit)
    with terminal.stages() as stage:
        stage(f"loading the {target.format} converter")
        plan = exporter.plan(
            entry,
            target,
            out=out,
            precision=precision,  # type: ignore[arg-type]  # checked above, as are those below
            preprocess=preprocess,  # type: ignore[arg-type]
            state=state,  # type: ignore[arg-type]
            gpu_safe=gpu_safe,
            softmax=softmax,
            dynamic_batch=dynamic_batch,
            calibrate=calibrate,
            images=images,
            notify=terminal.note,
            keep_float=keep_float,
        )
    if kit is not None:
        kit_.check_plan(plan, kit)
    pixels = video_of(clip, zoo.find(model), entry.size, images)
    network = obtained(entry, weights, seed, weights_format, shift=shift, allow_mismatch=allow_shift_mismatch)

    def refused(contract: Contract) -> None:
        if contract.verification and contract.verification.quality:  # what real clips showed, good or bad
            _report(plan.out, contract, contract.verification, time.perf_counter() - start, json=json)

    with terminal.stages() as stage:
        contract = exporter.export(zoo, network, plan, video=pixels, stage=stage, refused=refused)
        if network.weights == "local" and contract.checkpoint and weights:
            weights_.remember(contract.checkpoint, weights)  # for `verify`
        if registry_file is not None:
            weights_.remember_registry(contract, registry_file)
        if kit is not None:
            stage("writing the kit")
            answering = kit_.answering(zoo, network, plan.out, contract, plan.converter)
            kit_.write(kit, plan.out, contract, kit_.vector(contract, answering))
    assert contract.verification is not None
    _report(plan.out, contract, contract.verification, time.perf_counter() - start, json=json, kit=kit)


@app.command()
def verify(
    artifact: Annotated[Path, typer.Argument(help="A file that `tsmzoo export` wrote, its JSON beside it.")],
    weights: Weights = None,
    classes: Classes = None,
    labels: Labels = None,
    shift: Shift = None,
    steps: Annotated[int | None, typer.Option(help="Frames of each stream.", min=2, max=10_000)] = None,
    clip: Clip = None,
    images: Images = None,
    registry_file: RegistryFile = None,
    json: Json = False,
) -> None:
    """Compare a file with its torch model over a stream, or find that it was changed."""
    start = time.perf_counter()
    from tsmzoo import artifact as artifact_
    from tsmzoo.export import reverify

    zoo = with_model_of(load(registry_file), artifact, registry_file)

    pixels = None
    if classes is not None or labels is not None:
        contract = artifact_.read_contract(artifact)
        if classes not in (None, contract.classes) or names(labels, classes) not in (None, contract.labels):
            raise ZooError(f"{artifact}: has other classes than were given; leave out --classes and --labels")
    if clip is not None:
        contract = artifact_.read_contract(artifact)
        pixels = video_of(clip, zoo.find(contract.model), contract.size, images)
    with terminal.stages() as stage:
        contract, report = reverify(zoo, artifact, weights=weights, shift=shift, steps=steps, video=pixels, stage=stage)
    _report(artifact, contract, report, time.perf_counter() - start, json=json)
    if report.status == "failed":
        raise ZooError(f"{artifact}: failed its verification: {report.reason}; export it again")


def _report(
    path: Path, contract: Contract, report: Verification, seconds: float, *, json: bool, kit: Path | None = None
) -> None:
    from tsmzoo import report as report_

    if json:
        document = report_.document(path, contract, report, seconds)
        terminal.print_json(document | ({"kit": str(kit)} if kit else {}))
    else:
        terminal.say(report_.text(path, contract, report, seconds))
        if kit:
            terminal.say(f"  kit in {kit}: its README.md says how to use it")
