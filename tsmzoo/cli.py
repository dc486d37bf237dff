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
from tsmzoo.formats import Format, is_artifact

if TYPE_CHECKING:
    from tsmzoo.artifact import Array, Contract, Verification
    from tsmzoo.converter import Runner
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
    help="Pretrained TSN and TSM video models: find, download, count, measure, train, convert, verify and run them.",
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
Frames = Annotated[int | None, typer.Option(metavar="T", help="Frames of a clip (offline models).", min=1, max=256)]
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
    family: Annotated[str | None, typer.Option(help="tsn or tsm.")] = None,
    mode: Annotated[str | None, typer.Option(help="offline or online.")] = None,
    dataset: Annotated[str | None, typer.Option(help="For instance somethingv2.")] = None,
    backbone: Annotated[str | None, typer.Option(help="resnet50, resnet101 or mobilenet_v2.")] = None,
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
    """Fetch checkpoints into the cache, resumed and verified."""
    zoo = _load(registry_file)
    if not models and not all_:
        raise typer.BadParameter("name a model, or give --all")
    entries = list(zoo.models) if all_ else [zoo.find(name) for name in models or []]
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
        done.append({"id": entry.id, "path": str(path), "bytes": path.stat().st_size})
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
    from tsmzoo import dataset, recipe, training

    how = recipe.training(recipe_name)
    videos, held_out = dataset.read(data, list_file), dataset.read(val, val_list)
    with terminal.steps_bar() as progress:
        entry, last = training.train(zoo, how, videos, held_out, out, progress=progress, notify=terminal.note)
    if not training.is_first_process():
        return
    if json:
        terminal.print_json({"model": entry.id, "folder": str(out), "weights_sha256": entry.sha256} | last)
        return
    print(f"{entry.id}: {last['val_top1']:.2f} % on {len(held_out)} videos after {last['epoch']:g} epochs")
    print(f"use it: tsmzoo export {entry.id} --registry {out / training.REGISTRY} --to tflite")


# --- networks ------------------------------------------------------------------------------------------------------


def _sized(entry: Entry, size: int | None, frames: int | None) -> Entry:
    import msgspec

    if frames is not None and entry.mode == "online" and frames != 1:
        raise ZooError(f"{entry.id} is online and takes one frame a step; leave out --frames")
    return msgspec.structs.replace(entry, size=size or entry.size, frames=frames or entry.frames)


def _network(
    entry: Entry, weights: str | None, seed: int, weights_format: str | None = None, *, allow_mismatch: bool = False
) -> Network:
    from tsmzoo.weights import obtain

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
    if network.weights == "random":
        terminal.note(f"warning: the weights of {entry.id} are RANDOM (seed {seed}); its answers mean nothing")
    if network.checkpoint and network.checkpoint.shift_mismatch:
        terminal.note(f"warning: {entry.id} holds a BIDIRECTIONAL checkpoint; its answers are not the published ones")
    return network


def _video(clip: Path | None, entry: Entry) -> Array | None:
    """Return the frames of --clip as `entry` takes them."""
    if clip is None:
        return None
    if entry.modality == "flow":
        raise ZooError(f"{entry.id} sees optical flow, not video; leave out --clip")
    from tsmzoo import video

    return video.first(clip, entry.size)


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
            documents.append(cost.cost(_sized(entry, size, frames), per_module=per_module))
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
    precision: Annotated[str | None, typer.Option(help="fp32, or for coreml fp16 (its default).")] = None,
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
    registry_file: RegistryFile = None,
    json: Json = False,
) -> None:
    """Convert a model, with its contract beside it, verified before it gets its name."""
    _choice("--preprocess", preprocess, ("embedded", "external"))
    _choice("--state", state, ("explicit",))
    start = time.perf_counter()
    zoo = _load(registry_file)
    entry = _sized(zoo.find(model), size, frames)
    from tsmzoo import export as exporter
    from tsmzoo import weights as weights_

    with terminal.stages() as stage:
        stage(f"loading the {to} converter")
        plan = exporter.plan(
            entry,
            to,
            out=out,
            precision=precision,
            preprocess=preprocess,  # type: ignore[arg-type]  # checked above
            dynamic_batch=dynamic_batch,
        )
    pixels = _video(clip, entry)
    network = _network(entry, weights, seed, weights_format, allow_mismatch=allow_shift_mismatch)
    with terminal.stages() as stage:
        contract = exporter.export(zoo, network, plan, video=pixels, stage=stage)
    if network.weights == "local" and contract.checkpoint and weights:
        weights_.remember(contract.checkpoint, weights)  # for `verify`
    assert contract.verification is not None
    _report(plan.out, contract, contract.verification, time.perf_counter() - start, json=json)


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
        pixels = _video(clip, _sized(zoo.find(contract.model), contract.size, None))
    with terminal.stages() as stage:
        contract, report = reverify(zoo, artifact, weights=weights, steps=steps, video=pixels, stage=stage)
    _report(artifact, contract, report, time.perf_counter() - start, json=json)
    if report.status == "failed":
        raise ZooError(f"{artifact}: failed its verification: {report.reason}; export it again")


def _choice(option: str, value: str | None, choices: tuple[str, ...]) -> None:
    if value is not None and value not in choices:
        raise typer.BadParameter(f"{value!r} is not one of {', '.join(choices)}", param_hint=option)


def _report(path: Path, contract: Contract, report: Verification, seconds: float, *, json: bool) -> None:
    from tsmzoo import report as report_

    if json:
        terminal.print_json(report_.document(path, contract, report, seconds))
    else:
        print(report_.text(path, contract, report, seconds))


@app.command("eval")
def eval_(
    model: Annotated[str, typer.Argument(help="An exported file, or a model's id or alias.")],
    data: DataFolder,
    list_file: ListFile = None,
    frames: Frames = None,
    weights: Weights = None,
    seed: Seed = 0,
    weights_format: WeightsFormat = None,
    registry_file: RegistryFile = None,
    json: Json = False,
) -> None:
    """Measure accuracy over labelled videos: one clip each, its centre square."""
    zoo = _load(registry_file)
    from tsmzoo import dataset, evaluate

    videos = dataset.read(data, list_file)
    runner, contract = _open(zoo, model, weights, seed, weights_format, frames)
    evaluate.check_fit(zoo, videos, contract)
    count = frames or (contract.frames if contract.mode == "offline" else evaluate.ONLINE_FRAMES)
    with terminal.steps_bar() as progress:
        scores = evaluate.score(runner, contract, videos, count, lambda *steps: progress("evaluating", *steps))
    document = evaluate.summary(scores, videos, contract, count)
    document["published"] = evaluate.published(zoo, contract)
    if json:
        terminal.print_json(document)
    else:
        print(evaluate.text(document))


def _open(
    zoo: Registry, model: str, weights: str | None, seed: int, weights_format: str | None, frames: int | None = None
) -> tuple[Runner, Contract]:
    """Return an exported file, or a model in torch, ready to run."""
    from tsmzoo.live import open_runner

    if is_artifact(model):
        if weights is not None or weights_format is not None:
            raise ZooError(f"{model} holds its own weights; leave out --weights, or give a model's id")
        runner, contract = open_runner(Path(model))
        if contract.weights == "random":
            terminal.note(f"warning: the weights of {model} are RANDOM; its answers mean nothing")
        if contract.mode == "offline" and frames not in (None, contract.frames):
            raise ZooError(f"{model} takes clips of {contract.frames} frames; leave out --frames")
        return runner, contract
    from tsmzoo.describe import describe
    from tsmzoo.runner import TorchRunner

    entry = zoo.find(model)
    if entry.mode == "offline":
        entry = _sized(entry, None, frames)
    contract = describe(zoo, network := _network(entry, weights, seed, weights_format))
    return TorchRunner(network, contract), contract


@app.command()
def run(
    model: Annotated[str, typer.Argument(help="An exported file, or a model's id or alias.")],
    video: Annotated[Path, typer.Argument(help="A video file.")],
    window: Annotated[int, typer.Option(help="Steps of a stream that an answer is averaged over.", min=1)] = 12,
    weights: Weights = None,
    seed: Seed = 0,
    weights_format: WeightsFormat = None,
    registry_file: RegistryFile = None,
    json: Json = False,
) -> None:
    """Run a model over a video: the running top-5, and milliseconds per frame."""
    from tsmzoo import show
    from tsmzoo.live import watch

    zoo = _load(registry_file)
    runner, contract = _open(zoo, model, weights, seed, weights_format)
    answers = watch(runner, contract, video, window=window)
    document = {"model": contract.model, "mode": contract.mode, "runtime": runner.runtime, "video": str(video)}
    if json:
        terminal.print_json(document | show.summary(answers, show=lambda _: None))
        return
    with show.screen(live=sys.stdout.isatty()) as screen:
        document |= show.summary(answers, screen)
    print(show.text(document))


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
