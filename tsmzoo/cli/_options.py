"""Options that several commands share, and what they stand for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tsmzoo.errors import VideoError, ZooError

if TYPE_CHECKING:
    from tsmzoo.inference.reference import ModelReference
    from tsmzoo.registry import Entry, Registry, ShiftName


def _place(text: str) -> Path:
    """Return a path; raise VideoError where it is an address, whose password a path would be printed with."""
    from tsmzoo.data import address

    if (found := address.parse(text)) is not None:
        raise VideoError(f"{found}: is an address, which only `tsmzoo run` reads; give a file or a folder")
    return Path(text)


#: Of options that name videos: only here is an address still one, since Path makes one slash of two.
place: dict[str, Any] = {"parser": _place}

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
#: At most as many as a registry may say (`registry.Classes`, which the help need not wait for).
Classes = Annotated[
    int | None,
    typer.Option(metavar="N", help="Classes of the checkpoint, where they are not the model's.", min=1, max=65_536),
]
Labels = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Names of the checkpoint's classes, one a line, in their order.")
]
Shift = Annotated[
    Literal["uni", "bi"] | None,
    typer.Option(help="The shift that the checkpoint was trained with, where its keys do not tell."),
]
AllowMismatch = Annotated[
    bool, typer.Option("--allow-shift-mismatch", help="Load a bidirectional checkpoint into an online model.")
]
Size = Annotated[int | None, typer.Option(metavar="PX", help="Side of the input.", min=32, max=2048)]
Frames = Annotated[
    int | None,
    typer.Option(metavar="T", help="Frames of a clip; with eval, of an online model's stream, too.", min=1, max=256),
]
DataFolder = Annotated[
    Path,
    typer.Option(metavar="DIR", help="Videos, with annotations.txt (`path index` a line) and labels.txt.", **place),
]
ListFile = Annotated[Path | None, typer.Option("--list", metavar="FILE", help="A list in place of annotations.txt.")]
LayoutName = Annotated[
    str | None, typer.Option("--format", metavar="LAYOUT", help="The data's layout, else told by what lies there.")
]
Split = Annotated[int, typer.Option(help="Of UCF101 and HMDB51.", min=1, max=3)]
Clip = Annotated[
    Path | None,
    typer.Option(metavar="VIDEO|FOLDER", help="Real frames to verify with, beside the seeded noise.", **place),
]
Images = Annotated[
    str | None,
    typer.Option(
        metavar="TEMPLATE", help="What the images of a folder are called, if that is unclear: img_{:05d}.jpg."
    ),
]


def load(registry_file: Path | None) -> Registry:
    from tsmzoo import registry

    return registry.load(*([registry_file] if registry_file else []))


def own_checkpoint(weights: str | None, classes: int | None, labels: Path | None, shift: ShiftName | None) -> None:
    """Refuse what is said of a checkpoint of one's own where the published one is taken, whose facts are known."""
    options = {"--classes": classes, "--labels": labels, "--shift": shift}
    given = [name for name, value in options.items() if value is not None]
    if weights is None and given:
        raise typer.BadParameter(
            f"of a checkpoint of your own: give it with --weights FILE, or leave out {' and '.join(given)}"
        )


def frames_of(entry: Entry, frames: int | None) -> int | None:
    from tsmzoo.inference import reference

    return reference.frames_of(entry, frames)


def names(labels: Path | None, classes: int | None) -> tuple[str, ...] | None:
    """Return the names of --labels, as many as --classes says."""
    if labels is None:
        return None
    from tsmzoo import registry

    found = registry.read_labels(labels)
    if classes not in (None, len(found)):
        raise ZooError(f"{labels}: has {len(found)} names, and --classes says {classes}; leave out --classes")
    return found


def reference(
    model: str,
    weights: str | None,
    seed: int,
    weights_format: str | None,
    classes: int | None,
    labels: Path | None,
    shift: ShiftName | None,
    allow_shift_mismatch: bool,
    frames: int | None = None,
    size: int | None = None,
) -> ModelReference:
    """Return what the options say of a model."""
    from tsmzoo.inference.reference import ModelReference

    return ModelReference(
        model,
        weights,
        seed,
        weights_format,
        shift,
        allow_shift_mismatch,
        classes,
        names(labels, classes),
        frames,
        size,
    )


def number(value: float | None) -> float | None:
    """Refuse NaN, which is within no bounds and passes all of them; a callback of every option of a fraction."""
    if value is not None and value != value:
        raise typer.BadParameter("nan is no number")
    return value


#: Far beyond what a factor of scores may be, yet such that sums of them stay numbers.
_MOST = 1e6


def numbers(option: str, text: str | None) -> list[float]:
    """Return the numbers of an option such as `1,1.5`."""
    try:
        found = [float(part) for part in text.split(",")] if text else []
    except ValueError:
        found = [float("nan")]
    if not all(abs(number) <= _MOST for number in found):
        raise typer.BadParameter(f"{text!r} must be numbers with commas between", param_hint=option)
    return found


def choice(option: str, value: str | None, choices: tuple[str, ...]) -> None:
    if value is not None and value not in choices:
        raise typer.BadParameter(f"{value!r} is not one of {', '.join(choices)}", param_hint=option)
