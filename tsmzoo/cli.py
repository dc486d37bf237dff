"""The command line: each command parses, calls one function of the library, and prints.

Nothing heavy is imported at the top: `--help`, `list` and `info` answer without torch.
"""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
import typer.core

from tsmzoo import __version__, terminal
from tsmzoo.errors import ZooError
from tsmzoo.formats import Format

if TYPE_CHECKING:
    from tsmzoo.artifact import Array, Contract, Verification
    from tsmzoo.registry import Entry, Registry
    from tsmzoo.weights import Network


class _Commands(typer.core.TyperGroup):
    """Turns what a user can cause into one line and exit 1; everything else keeps its traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except ZooError as error:
            terminal.note(f"error: {error}")
            raise typer.Exit(1) from None


app = typer.Typer(
    cls=_Commands,
    help="Pretrained TSN, TSM and I3D video models: find, download, count, measure, train, convert, verify, run.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a character shows another
    app(prog_name="tsmzoo")


# --- options that several commands share ---------------------------------------------------------------------------

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else there.")]
RegistryFile = Annotated[
    Path | None, typer.Option("--registry", metavar="FILE", help="A registry of your own, on top of tsmzoo's.")
]
Model = Annotated[str, typer.Argument(help="A model's id or alias; `tsmzoo list` shows them.")]
Weights = Annotated[
    str | None,
    typer.Option(metavar="FILE|random", help="A local checkpoint, or `random`, in place of the published weights."),
]
Seed = Annotated[int, typer.Option(help="Seed of random weights.", min=0, max=2**63 - 1)]
WeightsFormat = Annotated[str | None, typer.Option(help="The checkpoint's format, else told from its keys.")]
AllowMismatch = Annotated[
    bool, typer.Option("--allow-shift-mismatch", help="Load a bidirectional checkpoint into an online model.")
]
Size = Annotated[int | None, typer.Option(metavar="PX", help="Side of the input.", min=32, max=2048)]
Frames = Annotated[
    int | None,
    typer.Option(metavar="T", help="Frames of a clip; with eval, of an online model's stream, too.", min=1, max=256),
]
DataFolder = Annotated[
    Path, typer.Option(metavar="DIR", help="Videos, with annotations.txt (`path index` a line) and labels.txt.")
]
ListFile = Annotated[Path | None, typer.Option("--list", metavar="FILE", help="A list in place of annotations.txt.")]
Clip = Annotated[
    Path | None, typer.Option(metavar="VIDEO", help="A real video to verify with, beside the seeded noise.")
]


def _version(show: bool) -> None:
    if show:
        print(f"tsmzoo {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def _load(registry_file: Path | None) -> Registry:
    from tsmzoo import registry

    return registry.load(*([registry_file] if registry_file else []))


# --- the registry --------------------------------------------------------------------------------------------------


@app.command("list")
def list_(
    pattern: Annotated[
        str | None, typer.Argument(help="Ids and aliases that fit a wildcard, such as 'tsm_*_sthv2*'.")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every checkpoint, not the recommended ones alone.")] = False,
    family: Annotated[str | None, typer.Option(help="tsn, tsm or i3d.")] = None,
    mode: Annotated[str | None, typer.Option(help="offline or online.")] = None,
    dataset: Annotated[str | None, typer.Option(help="For instance somethingv2.")] = None,
    backbone: Annotated[str | None, typer.Option(help="For instance resnet50, mobilenet_v2 or resnet50_i3d.")] = None,
    modality: Annotated[str | None, typer.Option(help="rgb or flow.")] = None,
    exportable: Annotated[bool, typer.Option("--exportable", help="Only what `tsmzoo export` takes.")] = False,
    search: Annotated[str | None, typer.Option(help="Text in an entry's id, alias, notes or source.")] = None,
    registry_file: RegistryFile = None,
    json: Json = False,
) -> None:
    """Show the models: the recommended ones, or all that a pattern or --all asks for."""
    from tsmzoo import listing

    zoo = _load(registry_file)
    wanted = {"family": family, "mode": mode, "dataset": dataset, "backbone": backbone, "modality": modality}
    matching = listing.matching(zoo, pattern, wanted, exportable=exportable, search=search)
    chosen = matching if pattern or all_ else [entry for entry in matching if entry.recommended]
    rows = [listing.row(zoo, entry) for entry in chosen]
    if json:
        terminal.print_json(rows)
        return
    print(terminal.table(listing.COLUMNS, [listing.cells(row) for row in rows]))
    more = f", {len(matching) - len(chosen)} more with --all" if len(matching) > len(chosen) else ""
    print(f"{len(chosen)} models{more}; `tsmzoo info ID` says what is doubtful of one")


@app.command()
def info(model: Model, registry_file: RegistryFile = None, json: Json = False) -> None:
    """Show all about one model: source, licence, figures and their protocols, input, states, labels, files."""
    from tsmzoo import card

    zoo = _load(registry_file)
    document = card.card(zoo, zoo.find(model))
    if json:
        terminal.print_json(document)
    else:
        print(card.text(document))


@app.command("download")
def download_(
    models: Annotated[list[str] | None, typer.Argument(help="Ids or aliases.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every model of the registry.")] = False,
    registry_file: RegistryFile = None,
    json: Json = False,
) -> None:
    """Fetch checkpoints into the cache, resumed and verified.

    TSMZOO_MIRROR may hold the https address of a folder that is tried first: <address>/<id>/<file>, then
    <address>/<file>.
    """
    from tsmzoo import cache

    zoo = _load(registry_file)
    if not models and not all_:
        raise typer.BadParameter("name a model, or give --all")
    entries = list(zoo.models) if all_ else [zoo.find(name) for name in models or []]
    if all_ and (without := [entry.id for entry in entries if not entry.has_weights]):
        terminal.note(f"skipped, since no weights were published: {', '.join(without)}")
        entries = [entry for entry in entries if entry.has_weights]
    failed: list[str] = []
    done = []
    for entry in entries:
        try:
            path = _fetch(entry)
        except ZooError as error:
            # With several to fetch, one dead link must not keep the others away.
            if len(entries) == 1:
                raise
            failed.append(entry.id)
            terminal.note(f"error: {error}")
            continue
        files = cache.local_paths(entry)
        size = sum(file.stat().st_size for file in files)
        done.append({"id": entry.id, "path": str(path), "files": list(map(str, files)), "bytes": size})
        if not json:
            print(f"{entry.id}: {path}")
    if json:
        terminal.print_json(done)
    if failed:
        raise ZooError(f"{len(failed)} of {len(entries)} were not fetched: {', '.join(failed)}; run it again to resume")


def _fetch(entry: Entry) -> Path:
    from tsmzoo import download

    with terminal.download_bar(entry.id) as progress:
        return download.fetch(entry, progress=progress, notify=terminal.note)


# --- data and training ---------------------------------------------------------------------------------------------


@app.command()
def data(
    task: Annotated[
        Literal["motion"], typer.Argument(help="motion: clips whose classes only the order of frames tells apart.")
    ],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder.")],
    videos: Annotated[int, typer.Option(help="Clips to write, an even number.", min=2, max=1_000_000)] = 1000,
    seed: Annotated[int, typer.Option(help="Another seed gives other clips.", min=0, max=2**63 - 1)] = 0,
    json: Json = False,
) -> None:
    """Write labelled videos, made here, in the layout that `eval` and `train` read."""
    from tsmzoo import motion

    with terminal.steps_bar() as progress:
        motion.write(folder, videos, seed, lambda done, total: progress("writing", done, total))
    if json:
        terminal.print_json({"task": task, "folder": str(folder), "videos": videos, "seed": seed})
    else:
        print(f"{folder}: {videos} videos of {len(motion.CLASSES)} classes, seed {seed}; annotations.txt lists them")


@app.command()
def train(
    recipe_name: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A recipe of tsmzoo's, or a .yaml file of your own.")
    ],
    data: DataFolder,
    val: Annotated[Path, typer.Option(metavar="DIR", help="The same, to measure on; never trained on.")],
    out: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="A run begun there is resumed.")],
    list_file: ListFile = None,
    val_list: Annotated[Path | None, typer.Option(metavar="FILE", help="The list of --val.")] = None,
    registry_file: RegistryFile = None,
    json: Json = False,
) -> None:
    """Train a model on your own videos; `torchrun --nproc-per-node N -m tsmzoo train …` uses several devices."""
    zoo = _load(registry_file)
    from tsmzoo import layouts, processes, recipe, training

    how = recipe.training(recipe_name)
    videos, held_out = layouts.read(data, list_file), layouts.read(val, val_list)
    with terminal.steps_bar() as progress:
        entry, last = training.train(zoo, how, videos, held_out, out, progress=progress, notify=terminal.note)
    if not processes.is_first():
        return
    if json:
        terminal.print_json({"model": entry.id, "folder": str(out), "weights_sha256": entry.sha256} | last)
        return
    print(f"{entry.id}: {last['val_top1']:.2f} % on {len(held_out)} videos after {last['epoch']:g} epochs")
    print(f"use it: tsmzoo export {entry.id} --registry {out / training.REGISTRY} --to tflite")


# --- networks ------------------------------------------------------------------------------------------------------


def _frames(entry: Entry, frames: int | None) -> int | None:
    if frames is not None and entry.mode == "online" and frames != 1:
        raise ZooError(f"{entry.id} is online and takes one frame a step; leave out --frames")
    return frames


def _network(
    entry: Entry, weights: str | None, seed: int, weights_format: str | None = None, *, allow_mismatch: bool = False
) -> Network:
    from tsmzoo.weights import obtain, warnings

    with terminal.download_bar(entry.id) as progress:
        network = obtain(
            entry,
            weights,
            seed=seed,
            weights_format=weights_format,
            allow_shift_mismatch=allow_mismatch,
            progress=progress,
            notify=terminal.note,
        )
    for warning in warnings(entry.id, network):
        terminal.note(warning)
    return network


def _video(clip: Path | None, entry: Entry, size: int) -> Array | None:
    """Return the frames of --clip as `entry` takes them at `size`."""
    if clip is None:
        return None
    if entry.modality == "flow":
        raise ZooError(f"{entry.id} sees optical flow, not video; leave out --clip")
    from tsmzoo import source

    return source.first(clip, max(entry.short_side, size), size)


@app.command()
def flops(
    model: Annotated[str | None, typer.Argument(help="A model's id or alias.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every model of the registry.")] = False,
    per_module: Annotated[bool, typer.Option("--per-module", help="Show where they are spent.")] = False,
    size: Size = None,
    frames: Frames = None,
    registry_file: RegistryFile = None,
    json: Json = False,
) -> None:
    """Count multiply-accumulates and parameters, next to the published figures."""
    from tsmzoo import cost

    if (model is None) == (not all_):
        raise typer.BadParameter("name a model, or give --all")
    zoo = _load(registry_file)
    entries = list(zoo.models) if all_ else [zoo.find(model or "")]
    with terminal.stages() as stage:
        documents = []
        for entry in entries:
            stage(f"counting {entry.id}")
            # The table shows no videos, whose many frames take minutes to count.
            counted = cost.cost(
                entry, size, _frames(entry, frames), per_module=per_module, per_video=json or model is not None
            )
            documents.append(counted)
    if json:
        terminal.print_json(documents if all_ else documents[0])
    elif all_:
        print(terminal.table(cost.COLUMNS, [cost.cells(document) for document in documents]))
        print(f"GMACs: {cost.CONVENTION}")
    else:
        print(cost.text(documents[0]))


@app.command()
def export(
    model: Model,
    to: Annotated[Format, typer.Option(help="The format to write.")],
    out: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="PATH", help="Default: <model>-<precision>.<ending>")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="fp32, fp16, int8 (weights and activations) or w8 (weights).")
    ] = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Videos that int8 takes its ranges from; the bundled have theirs."),
    ] = None,
    keep_float: Annotated[
        int, typer.Option(help="How many of the operators that int8 costs most stay float (tflite).", min=0)
    ] = 0,
    preprocess: Annotated[
        str | None, typer.Option(help="embedded (default): camera values in; external: normalised values in.")
    ] = None,
    state: Annotated[str, typer.Option(help="explicit: states are inputs and outputs.")] = "explicit",
    dynamic_batch: Annotated[bool, typer.Option("--dynamic-batch", help="Any number of clips a call (onnx).")] = False,
    weights: Weights = None,
    seed: Seed = 0,
    weights_format: WeightsFormat = None,
    allow_shift_mismatch: AllowMismatch = False,
    size: Size = None,
    frames: Frames = None,
    clip: Clip = None,
    kit: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A new folder for an app: the file, a class that runs it, a test vector."),
    ] = None,
    registry_file: RegistryFile = None,
    json: Json = False,
) -> None:
    """Convert a model, with its contract beside it, verified before it gets its name."""
    _choice("--preprocess", preprocess, ("embedded", "external"))
    _choice("--state", state, ("explicit",))
    start = time.perf_counter()
    zoo = _load(registry_file)
    from tsmzoo import export as exporter
    from tsmzoo import kit as kit_
    from tsmzoo import weights as weights_
    from tsmzoo.subject import resized

    entry = zoo.find(model)
    entry = resized(entry, _frames(entry, frames), size)
    if kit is not None:
        kit_.check(kit)

    with terminal.stages() as stage:
        stage(f"loading the {to} converter")
        plan = exporter.plan(
            entry,
            to,
            out=out,
            precision=precision,
            preprocess=preprocess,  # type: ignore[arg-type]  # checked above
            dynamic_batch=dynamic_batch,
            calibrate=calibrate,
            keep_float=keep_float,
        )
    pixels = _video(clip, zoo.find(model), entry.size)
    network = _network(entry, weights, seed, weights_format, allow_mismatch=allow_shift_mismatch)
    with terminal.stages() as stage:
        contract = exporter.export(zoo, network, plan, video=pixels, stage=stage)
        if kit is not None:
            stage("writing the kit")
            answering = kit_.answering(zoo, network, plan.out, contract, plan.converter)
            kit_.write(kit, plan.out, contract, kit_.vector(contract, answering))
    if network.weights == "local" and contract.checkpoint and weights:
        weights_.remember(contract.checkpoint, weights)  # for `verify`
    assert contract.verification is not None
    _report(plan.out, contract, contract.verification, time.perf_counter() - start, json=json, kit=kit)


@app.command()
def verify(
    artifact: Annotated[Path, typer.Argument(help="A file that `tsmzoo export` wrote, its JSON beside it.")],
    weights: Weights = None,
    steps: Annotated[int | None, typer.Option(help="Frames of each stream.", min=2, max=10_000)] = None,
    clip: Clip = None,
    registry_file: RegistryFile = None,
    json: Json = False,
) -> None:
    """Compare a file with its torch model over a stream, or find that it was changed."""
    start = time.perf_counter()
    zoo = _load(registry_file)
    from tsmzoo import artifact as artifact_
    from tsmzoo.export import reverify

    pixels = None
    if clip is not None:
        contract = artifact_.read_contract(artifact)
        pixels = _video(clip, zoo.find(contract.model), contract.size)
    with terminal.stages() as stage:
        contract, report = reverify(zoo, artifact, weights=weights, steps=steps, video=pixels, stage=stage)
    _report(artifact, contract, report, time.perf_counter() - start, json=json)
    if report.status == "failed":
        raise ZooError(f"{artifact}: failed its verification: {report.reason}; export it again")


def _choice(option: str, value: str | None, choices: tuple[str, ...]) -> None:
    if value is not None and value not in choices:
        raise typer.BadParameter(f"{value!r} is not one of {', '.join(choices)}", param_hint=option)


def _report(
    path: Path, contract: Contract, report: Verification, seconds: float, *, json: bool, kit: Path | None = None
) -> None:
    from tsmzoo import report as report_

    if json:
        document = report_.document(path, contract, report, seconds)
        terminal.print_json(document | ({"kit": str(kit)} if kit else {}))
    else:
        print(report_.text(path, contract, report, seconds))
        if kit:
            print(f"  kit in {kit}: its README.md says how to use it")


@app.command("eval")
def eval_(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL|FILE…",
            help="A model's id, an exported file, or predictions that were saved; several add up.",
        ),
    ],
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The dataset as it was published, or lists of your own.")
    ] = None,
    list_file: ListFile = None,
    layout: Annotated[
        str | None, typer.Option("--format", metavar="LAYOUT", help="The data's layout, else told by what lies there.")
    ] = None,
    split: Annotated[int, typer.Option(help="Of UCF101 and HMDB51.", min=1, max=3)] = 1,
    protocol: Annotated[
        str | None, typer.Option(help="An id or short name, else that of the first published figure.")
    ] = None,
    clips: Annotated[int | None, typer.Option(help="Clips a video, in place of the protocol's.", min=1)] = None,
    crops: Annotated[Literal["1", "3", "5", "10"] | None, typer.Option(help="In place of the protocol's.")] = None,
    frames: Frames = None,
    observe: Annotated[
        str | None, typer.Option(metavar="P,P…", help="Percents of each video after which to score, too.")
    ] = None,
    weights_of_scores: Annotated[
        str | None, typer.Option(metavar="W,W…", help="Factors of the scores of several models; 1 each without.")
    ] = None,
    predictions: Annotated[
        Path | None, typer.Option(metavar="FILE.jsonl", help="Keep predictions; a stopped run goes on from there.")
    ] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page with the confusion matrix.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at a video that cannot be decoded.")] = False,
    workers: Annotated[int | None, typer.Option(help="Processes; one a core without, 0 for this one.", min=0)] = None,
    weights: Weights = None,
    seed: Seed = 0,
    weights_format: WeightsFormat = None,
    registry_file: RegistryFile = None,
    json: Json = False,
) -> None:
    """Measure accuracy over labelled videos under a published protocol, beside the published figure."""
    levels, factors = _numbers("--observe", observe), _numbers("--weights-of-scores", weights_of_scores)
    if not all(level.is_integer() and 1 <= level <= 100 for level in levels):
        raise typer.BadParameter(f"{observe!r} must be whole percents, 1…100", param_hint="--observe")
    zoo = _load(registry_file)
    from contextlib import ExitStack

    from tsmzoo import evaluate, layouts, page, processes, scored
    from tsmzoo.evaluate import Settings
    from tsmzoo.plan import Changes
    from tsmzoo.subject import Subject

    settings = Settings(
        protocol=protocol,
        changes=Changes(clips=clips, crops=int(crops) if crops else None, frames=frames),  # type: ignore[arg-type]
        observe=tuple(sorted({int(level) for level in levels} - {100})),  # the whole is scored anyway
        strict=strict,
        workers=workers,
        registries=(registry_file,) if registry_file else (),
    )
    live = [model for model in models if not evaluate.is_saved(model)]
    if live and data is None:
        raise typer.BadParameter("give the folder of the data with --data")
    if not live and (predictions is not None or levels):
        raise typer.BadParameter("saved predictions are scored as they are; leave out --predictions and --observe")
    if factors and len(factors) != len(models):
        raise typer.BadParameter(f"{len(models)} models need as many --weights-of-scores")
    if len(live) > 1 and weights not in (None, "random"):
        raise typer.BadParameter("one checkpoint is not that of several models; predict one by one with --predictions")
    if html is not None:
        page.check(html)
    first = processes.is_first()
    with ExitStack() as stack:
        listed = layouts.read(data, list_file, layout, split) if data is not None and live else None
        places = evaluate.places(models, predictions, stack)
        speed = None
        progress = stack.enter_context(terminal.videos_bar(show=first))
        for model, path in zip(models, places, strict=True):
            if listed is not None and model in live:
                subject = Subject(model, weights, seed, weights_format)
                notify = terminal.note if first else terminal.silent
                speed = evaluate.evaluate(zoo, subject, listed, settings, path, progress=progress, notify=notify)
        if not first:
            return
        found = scored.score(places, factors)
        if strict and found.skipped:
            video, why = found.skipped[0]
            raise ZooError(f"--strict: {video} was skipped before ({why}); mend it and delete {places[0]} to try again")
        document = scored.summary(zoo, found, speed)
    if json:
        terminal.print_json(document)
    else:
        print(scored.text(document))
    if html is not None:
        page.write(html, document, found)


def _numbers(option: str, text: str | None) -> list[float]:
    """Return the numbers of an option such as `1,1.5`."""
    from math import isfinite

    try:
        found = [float(part) for part in text.split(",")] if text else []
    except ValueError:
        found = [float("nan")]
    if not all(isfinite(number) for number in found):
        raise typer.BadParameter(f"{text!r} must be numbers with commas between", param_hint=option)
    return found


@app.command()
def run(
    model: Annotated[str, typer.Argument(help="An exported file, or a model's id or alias.")],
    video: Annotated[
        str, typer.Argument(metavar="VIDEO|FOLDER|CAMERA", help="A video, a folder of images, or a camera's number: 0.")
    ],
    save: Annotated[
        Path | None, typer.Option(metavar="FILE.mp4", help="Write the video with the answers on it, all its frames.")
    ] = None,
    window: Annotated[
        int | None, typer.Option(metavar="N", help="Answers that are averaged; 0.8 s of a stream without.", min=1)
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(metavar="P", help="Below this probability nothing is decided; 0.5 without.", min=0, max=1),
    ] = None,
    hold: Annotated[
        int | None,
        typer.Option(metavar="K", help="Steps running that a new label must lead; 2 of a stream without.", min=1),
    ] = None,
    cut: Annotated[
        float | None,
        typer.Option(
            metavar="D", help="Difference of two frames, 0…1, that begins anew; 0.4 without, 0: never.", min=0
        ),
    ] = None,
    reset_every: Annotated[
        float | None, typer.Option(metavar="S", help="Begin anew every so many seconds.", min=0.01)
    ] = None,
    every: Annotated[
        float | None,
        typer.Option(metavar="S", help="Seconds from answer to answer of an offline model; a camera's: 1.", min=0.01),
    ] = None,
    span: Annotated[
        float | None,
        typer.Option(metavar="S", help="Seconds that a clip of such answers spans; 4 without.", min=0.01),
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option(metavar="F", help="Images a second of a folder; each is a step without.", min=0.01, max=1000),
    ] = None,
    weights: Weights = None,
    seed: Seed = 0,
    weights_format: WeightsFormat = None,
    registry_file: RegistryFile = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document a decision, each on a line.")] = False,
) -> None:
    """Run a model over a video, images or a camera, live: the label, the top-5, milliseconds per frame.

    An online model answers at its own rate; the mean of its last answers must reach the threshold and hold before
    its label is shown, and it begins anew when the scene is cut, or at the key r. An offline model gives one answer
    to a whole video, and a camera one every second. Ctrl-C ends it, and keeps what was saved.
    """
    zoo = _load(registry_file)
    from contextlib import nullcontext

    from tsmzoo import annotate, frames, play, show
    from tsmzoo.subject import Subject

    settings = play.Settings(
        window=window,
        threshold=threshold,
        hold=hold,
        cut=cut,
        reset_every=reset_every,
        every=every,
        span=span,
        save=save,
    )
    if save is not None:
        annotate.check(save, video)
    with terminal.download_bar(model) as progress:
        subject = Subject(model, weights, seed, weights_format)
        runner, contract = subject.open(zoo, progress=progress, notify=terminal.note)
    play.check(settings, contract)
    source = frames.source(video, fps, contract.target_fps if contract.mode == "online" else None)
    on_terminal = sys.stdout.isatty() and not json
    lines = nullcontext(lambda answer, _: terminal.print_json_line(show.document(answer)))
    with (
        terminal.interruptible() as stopped,
        terminal.keys(live=on_terminal) as pressed,
        lines if json else show.screen(live=on_terminal) as screen,
    ):
        tally = play.play(
            runner, contract, source, settings, show=screen, stopped=stopped, asked=lambda: "r" in pressed()
        )
    if tally.last is None:
        terminal.note(f"{source.name}: ended before the first answer")
        return
    about = (f"{contract.model} on {source.name}", "frame" if contract.mode == "online" else "clip", runner.runtime)
    if json:
        terminal.note(show.summary(*about, tally))
    else:
        print(show.text(*about, tally))
    if save is not None:
        terminal.note(f"saved {save}")


@app.command()
def demo(
    keep: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep the clips and the exported file in a new folder.")
    ] = None,
    videos: Annotated[int, typer.Option(help="Clips to measure on, an even number.", min=2)] = 280,
    json: Json = False,
) -> None:
    """See the point in two minutes: three models of equal cost, measured, exported, verified and streamed."""
    import tempfile
    from contextlib import nullcontext

    zoo = _load(None)
    from tsmzoo import demo as demo_

    with (
        tempfile.TemporaryDirectory() if keep is None else nullcontext(keep) as folder,
        terminal.steps_bar() as progress,
    ):
        document = demo_.demo(
            zoo,
            Path(folder),
            videos,
            say=(lambda _: None) if json else print,
            progress=progress,
        )
    if json:
        terminal.print_json(document)
