"""Options that several commands share, and the functions that read them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tsmzoo.errors import VideoError, ZooError

if TYPE_CHECKING:
    from tsmzoo.inference.reference import ModelReference


def _place(text: str) -> Path:
    """Return a path. Raises VideoError for an address: a path would be printed with its password."""
    from tsmzoo.data import address

    if (found := address.parse(text)) is not None:
        raise VideoError(f"{found}: is an address, which only `tsmzoo run` reads; give a file or a folder")
    return Path(text)


#: For options that name videos. Addresses are refused here, before Path makes one slash of two.
place: dict[str, Any] = {"parser": _place}

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else.")]
RegistryFile = Annotated[
    Path | None, typer.Option("--registry", metavar="FILE", help="Your own registry, added to tsmzoo's.")
]


def complete_model(incomplete: str) -> list[str]:
    """Return the ids and aliases that begin with `incomplete`, for the completion of shells."""
    from tsmzoo import registry

    zoo = registry.load()
    return [name for name in (*zoo.by_id, *zoo.aliases) if name.startswith(incomplete)]


_model = typer.Argument(
    metavar="MODEL", help="Model id or alias; `tsmzoo list` shows them.", autocompletion=complete_model
)
Model = Annotated[str, _model]
OptionalModel = Annotated[str | None, _model]
Weights = Annotated[
    str | None,
    typer.Option(metavar="FILE|random", help="Local checkpoint, or `random`, instead of the published weights."),
]
Seed = Annotated[int, typer.Option(metavar="N", help="Seed of random weights.", min=0, max=2**63 - 1)]
WeightsFormat = Annotated[
    str | None, typer.Option(metavar="FORMAT", help="Format of the checkpoint (default: detected from its keys).")
]
#: The same limit as in a registry (`registry.Classes`, which is not imported for speed).
Classes = Annotated[
    int | None,
    typer.Option(metavar="N", help="Number of classes of the checkpoint (default: the model's).", min=1, max=65_536),
]
Labels = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="File with the names of the checkpoint's classes, one per line, in order."),
]
Shift = Annotated[
    Literal["uni", "bi"] | None,
    typer.Option(help="Shift that the checkpoint was trained with, if its keys do not show it."),
]
AllowMismatch = Annotated[
    bool, typer.Option("--allow-shift-mismatch", help="Load a bidirectional checkpoint into an online model anyway.")
]
Size = Annotated[int | None, typer.Option(metavar="PX", help="Side of the input, in pixels.", min=32, max=2048)]
Frames = Annotated[
    int | None,
    typer.Option(metavar="T", help="Frames of a clip; with eval, also of an online model's stream.", min=1, max=256),
]
DataFolder = Annotated[
    Path,
    typer.Option(
        metavar="DIR", help="Folder of videos with annotations.txt (`path index` per line) and labels.txt.", **place
    ),
]
ListFile = Annotated[
    Path | None, typer.Option("--list", metavar="FILE", help="List to read instead of annotations.txt.")
]
LayoutName = Annotated[
    str | None, typer.Option("--format", metavar="LAYOUT", help="Layout of the data (default: detected).")
]
Split = Annotated[int, typer.Option(help="Split of UCF101 or HMDB51.", min=1, max=3)]
Clip = Annotated[
    Path | None,
    typer.Option(metavar="VIDEO|FOLDER", help="Real frames to verify with, in addition to seeded noise.", **place),
]
Images = Annotated[
    str | None,
    typer.Option(
        metavar="TEMPLATE", help="Name template of the images in a folder, such as img_{:05d}.jpg (default: detected)."
    ),
]


def names(labels: Path | None, classes: int | None) -> tuple[str, ...] | None:
    """Return the names in --labels. Raises ZooError if --classes is another number."""
    if labels is None:
        return None
    from tsmzoo import registry

    found = registry.read_labels(labels)
    if classes not in (None, len(found)):
        raise ZooError(f"{labels}: has {len(found)} names, and --classes says {classes}; leave out --classes")
    return found


def references(models: list[str], labels: Path | None, **own: Any) -> list[ModelReference]:
    """Return what the options say of each of `models`. Raises typer.BadParameter if one checkpoint is for several."""
    from tsmzoo.inference.reference import ModelReference

    own["labels"] = names(labels, own["classes"])
    if len(models) > 1 and (own["weights"] not in (None, "random") or own["classes"] or own["labels"] or own["shift"]):
        raise typer.BadParameter("one checkpoint is not that of several models; leave out --weights, or give random")
    return [ModelReference(model, **own) for model in models]


def number(value: float | None) -> float | None:
    """Refuse NaN, which passes every bound; the callback of all options with fractions."""
    if value is not None and value != value:
        raise typer.BadParameter("nan is no number")
    return value


def numbers(option: str, text: str | None) -> list[float]:
    """Parse the value of an option such as `1,1.5`."""
    try:
        return [float(part) for part in text.split(",")] if text else []
    except ValueError:
        raise typer.BadParameter(f"{text!r} must be numbers with commas between", param_hint=option) from None


def choice(option: str, value: str | None, choices: tuple[str, ...]) -> None:
    if value is not None and value not in choices:
        raise typer.BadParameter(f"{value!r} is not one of {', '.join(choices)}", param_hint=option)
