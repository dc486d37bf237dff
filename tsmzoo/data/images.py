"""Sequences of images in folders: which files belong to one, in which order; each opened upright.

A name is text around numbers. The number that tells the images of a sequence apart orders them; the text is the
sequence's template, `img_{:05d}.jpg`. Optical flow has an x or y in it and lies beside RGB images as often as not.
"""

from __future__ import annotations

import os
import re
import struct
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from PIL import Image

from tsmzoo.data.dataset import IMAGE_ENDINGS
from tsmzoo.errors import VideoError
from tsmzoo.system import files

#: Numbers of a name; one of six digits and more may be a time with a fraction, `1305031102.175304`.
_NUMBER = re.compile(r"(\d{6,}\.\d+|\d+)")
#: A component of flow, at the end of the text before the number or behind it: `flow_x_`, `x_`, `000012-x_`, `_x`.
_COMPONENT = re.compile(r"(?:^|[_. -]|flow)([xyuv])[_. -]?$|^[_. -]?([xyuv])$", re.IGNORECASE)
_FLOW = re.compile(r"(?:^|[^a-z])(?:tvl1|(?:opt(?:ical)?)?flows?[xyuvi]?)(?:[^a-z]|$)", re.IGNORECASE)
_RGB = re.compile(r"(?:^|[^a-z])(?:rgb|img|image)(?:[^a-z]|$)", re.IGNORECASE)
#: What programs lay beside the images of a video.
_COVER = re.compile(r"(?:cover|folder|poster|preview|thumb|thumbnail)(?![a-z])", re.IGNORECASE)
#: Of a template that is asked for: a number or a component of flow, or any text.
_FIELD = re.compile(r"(\{[^{}]*\}|%0?\d*d|\*)")
#: EXIF's orientation, and what puts such pixels upright.
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
#: Templates that a message names.
_NAMED = 4


@dataclass(frozen=True)
class _Named:
    """A file, and what its name says."""

    name: str
    #: What stands before the number and behind it, without the ending; and the number, none where it has none.
    before: str
    number: str | None
    after: str

    @property
    def value(self) -> Decimal:
        return Decimal(self.number or -1)

    @property
    def shape(self) -> tuple[str, ...]:
        """Return the text of a name, without numbers; capitals do not count."""
        return tuple(_NUMBER.split(Path(self.name).stem.lower())[::2])

    @property
    def component(self) -> str:
        """Return x, y, u or v of flow, or nothing."""
        if self.number is None:
            return ""
        found = [match for text in (self.before, self.after) if (match := _COMPONENT.search(text))]
        return (found[0][1] or found[0][2]).lower() if found else ""

    def has(self, word: re.Pattern[str]) -> bool:
        return bool(word.search(self.before) or word.search(self.after))


def sequence(folder: Path, template: str | None = None, *, flow: bool = False) -> list[tuple[Path, ...]]:
    """Return the images of a folder in order: RGB, or x and y of `flow` (or both in one image).

    `template` names them where it is not told by what lies there. Raises VideoError where there are none, or several
    sequences.
    """
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if _is_image(entry.name) and not entry.is_dir()]
    except OSError as error:
        raise VideoError(f"{folder}: cannot be read ({error.strerror}); check its permissions") from None
    if not names:
        raise VideoError(f"{folder}: holds no {'flow ' if flow else ''}images; put some there, or give a video")
    asked = template is not None
    found = _parsed(names) if template is None else _asked(folder, names, template)
    if flow:
        return _flow(folder, found, asked=asked)
    if not asked:
        components = _components(found)
        rgb = [one for one in found if one.component not in components and not one.has(_FLOW)]
        if not rgb:
            raise VideoError(
                f"{folder}: holds no images but of optical flow; give RGB images or a model of flow ({_choose(found)})"
            )
        found = rgb
    return [(folder / one.name,) for one in _ordered(folder, found, asked=asked)]


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_ENDINGS and not name.startswith(".")


def _components(found: Iterable[_Named]) -> tuple[str, ...]:
    """Return the names of the two components of flow that are there, none where one or both are not."""
    there = {one.component for one in found}
    return next((pair for pair in (("x", "y"), ("u", "v")) if there.issuperset(pair)), ())


def _flow(folder: Path, found: list[_Named], *, asked: bool) -> list[tuple[Path, ...]]:
    if components := _components(found):
        x, y = (
            {
                one.value: one.name
                for one in _ordered(folder, [one for one in found if one.component == part], asked=asked)
            }
            for part in components
        )
        if both := sorted(x.keys() & y.keys()):
            return [(folder / x[number], folder / y[number]) for number in both]
        raise VideoError(f"{folder}: holds no flow images with both components; extract them anew")
    # MIT's Something-Something V2 keeps x in the red and y in the green of one image.
    whole = [one for one in found if one.has(_FLOW) and not one.component]
    whole = whole or [one for one in found if asked or not (one.component or one.has(_RGB))]
    if not whole:
        raise VideoError(f"{folder}: holds no flow images; extract them, or choose an RGB model ({_choose(found)})")
    return [(folder / one.name,) for one in _ordered(folder, whole, asked=asked)]


# --- which number of a name ------------------------------------------------------------------------------------------


def _parsed(names: Iterable[str]) -> list[_Named]:
    """Return names with the number that tells those of one shape apart, such as the first of `img_00001_96x96.jpg`."""
    shapes: dict[tuple[str, ...], list[tuple[str, list[str]]]] = defaultdict(list)
    for name in names:
        pieces = _NUMBER.split(Path(name).stem)
        shapes[tuple(piece.lower() for piece in pieces[::2])].append((name, pieces))
    found = []
    for shape, alike in shapes.items():
        places = range(1, 2 * len(shape) - 1, 2)
        # The one with most values; of several the last.
        values = {place: len({Decimal(pieces[place]) for _, pieces in alike}) for place in places}
        place = max(places, key=lambda place: (values[place], place), default=None)
        for name, pieces in alike:
            if place is None:
                found.append(_Named(name, pieces[0], None, ""))
            else:
                found.append(_Named(name, "".join(pieces[:place]), pieces[place], "".join(pieces[place + 1 :])))
    return found


def _asked(folder: Path, names: list[str], template: str) -> list[_Named]:
    """Return the names that a template fits: `img_{:05d}.jpg`, `img_%05d.jpg`, `flow_{}_{:05d}.jpg`, `cam1_*.png`."""
    pieces = _FIELD.split(re.sub(r"\*+", "*", template))
    last = max((place for place in range(1, len(pieces), 2) if pieces[place] != "*"), default=None)
    found = []
    for name in names:
        if (ends := _fitted(pieces, last, name)) is None:
            continue
        stem = Path(name).stem
        if last is None:
            found.append(_Named(name, stem, None, ""))
        else:
            begin, end = ends[last - 1], ends[last]
            found.append(_Named(name, name[:begin], name[begin:end], stem[end:]))
    if not found:
        raise VideoError(f"{folder}: holds no image named like {template}; {_choose(_parsed(names))}")
    # Without a width any number fits; where both lie there, 1 and 00001, those are meant that have none.
    plain = [one for one in found if one.number is None or one.number == str(one.value)]
    return plain if plain and len({one.value for one in found if one.number}) < len(found) else found


def _fitted(pieces: Sequence[str], last: int | None, name: str) -> tuple[int, ...] | None:
    """Return where in `name` each piece of a template ends, the first ones as far behind as may be; None if not at all.

    Every other piece is a field, that at `last` the number. No place is tried twice: as a regular expression, a
    template of several fields could take for ever.
    """
    if len(pieces) > 2 * len(name) + 3:
        return None  # of two pieces one has a character
    failed: set[tuple[int, int]] = set()

    def rest(place: int, at: int) -> tuple[int, ...] | None:
        if place == len(pieces):
            return () if at == len(name) else None
        if (place, at) in failed:
            return None
        field = _ends(pieces[place], name, at, last=place == last) if place % 2 else _end(pieces[place], name, at)
        for end in field:
            if (behind := rest(place + 1, end)) is not None:
                return (end, *behind)
        failed.add((place, at))
        return None

    return rest(0, 0)


def _end(text: str, name: str, at: int) -> Sequence[int]:
    return (at + len(text),) if name.startswith(text, at) else ()


def _ends(field: str, name: str, at: int, *, last: bool) -> Sequence[int]:
    """Return where a field that begins at `at` may end, the longest first."""
    if field == "*":
        return range(len(name), at - 1, -1)
    width = re.search(r"0(\d{1,4})", field)
    if not (last or width) and name.startswith(("x", "y", "u", "v"), at):
        return (at + 1,)  # a component of flow
    digits = at
    while digits < len(name) and name[digits].isdecimal():
        digits += 1
    return range(digits, at + max(1, int(width[1]) if width else 1) - 1, -1)


# --- one sequence ----------------------------------------------------------------------------------------------------


def _ordered(folder: Path, found: list[_Named], *, asked: bool) -> list[_Named]:
    """Return the images of one sequence in order. Raises VideoError where they are of several."""
    shapes: dict[tuple[str, ...], list[_Named]] = defaultdict(list)
    for one in found:
        if one.number is not None:
            shapes[one.shape].append(one)
    several = [group for group in shapes.values() if len(group) > 1]
    if len(several) > 1 and not asked:
        raise VideoError(f"{folder}: holds several sequences of images; {_choose(found)}")
    chosen = several[0] if several and not asked else found
    if doubtful := _doubtful(chosen, found):
        named = ", ".join(sorted(one.name for one in doubtful)[:_NAMED])
        raise VideoError(
            f"{folder}: holds a sequence of images and others that may be of it, {named}; {_choose(found)}"
        )
    first: dict[Decimal, _Named] = {}
    for one in chosen:
        if one.number is not None and (other := first.setdefault(one.value, one)) is not one:
            pair = " and ".join(sorted((one.name, other.name)))
            raise VideoError(f"{folder}: holds several images of number {one.number}, {pair}; {_choose(chosen)}")
    alike = len({(one.before.lower(), one.after.lower()) for one in chosen}) == 1
    return sorted(chosen, key=(lambda one: one.value) if alike or (asked and several) else _natural)


def _doubtful(chosen: list[_Named], found: list[_Named]) -> list[_Named]:
    """Return those of the images found beside a sequence that cannot be told to be none of it.

    A cover is none of it, nor one image without a number or with one that the sequence has, too.
    """
    names, values = {one.name for one in chosen}, {one.value for one in chosen}
    beside = [one for one in found if one.name not in names and not _COVER.match(one.name)]
    return beside if len(beside) > 1 else [one for one in beside if one.number and one.value not in values]


def _natural(named: _Named) -> list[tuple[Decimal, str]]:
    """Return what orders names as people do: 9 before 10."""
    pieces = _NUMBER.split(Path(named.name).stem)
    return [(Decimal(piece) if place % 2 else Decimal(-1), piece) for place, piece in enumerate(pieces)]


def _choose(found: Sequence[_Named]) -> str:
    """Return how to choose one of the sequences there."""
    widths: dict[tuple[str, str, str], set[int]] = defaultdict(set)
    for one in found:
        if one.number and one.number.startswith("0") and len(one.number) > 1:
            widths[_text(one)].add(len(one.number))
    templates: Counter[str] = Counter()
    for one in found:
        if one.number is None:
            templates[one.name] += 1
            continue
        before, after, ending = _text(one)
        padded = max((width for width in widths[before, after, ending] if width <= len(one.number)), default=None)
        templates[f"{before}{'{}' if padded is None else f'{{:0{padded}d}}'}{after}{ending}"] += 1
    named = [template for template, _ in templates.most_common()]
    more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    return f"there is {', '.join(sorted(named[:_NAMED]))}{more}: choose with --images, '*' takes all by name"


def _text(named: _Named) -> tuple[str, str, str]:
    return named.before, named.after, Path(named.name).suffix


# --- opening ---------------------------------------------------------------------------------------------------------


def opened(path: Path, mode: str = "RGB") -> Image.Image:
    """Return an image upright: the turn that cameras record beside the pixels is undone. Raises VideoError."""
    try:
        with files.opened(path) as file:
            if not file.read(1):
                raise ValueError("it is empty")
            file.seek(0)
            with Image.open(file) as image:
                image.load()  # some formats say how they lie behind the pixels
                turn = _UPRIGHT.get(_orientation(image))
                upright = image if turn is None else image.transpose(turn)
                return upright.convert(mode)
    # What Pillow says of bad files; RuntimeError is what it makes of AVIF's decoder.
    except (OSError, SyntaxError, ValueError, RuntimeError, Image.DecompressionBombError) as error:
        why = getattr(error, "strerror", None) or error
        raise VideoError(
            f"{path.parent}: {path.name}: cannot be decoded ({why}); delete it, or give other images"
        ) from None


def _orientation(image: Image.Image) -> int:
    try:
        said = image.getexif().get(_ORIENTATION)
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, struct.error):  # what Pillow says of broken EXIF
        return 1
    return said if isinstance(said, int) else 1
