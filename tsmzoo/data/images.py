"""Find the image sequence in a folder, in order, and open its images upright.

A file name is text around numbers. The number that differs among the images of a sequence gives their order; the text
is the template of the sequence, for instance `img_{:05d}.jpg`. Names of optical flow have an x or y in them, and often
lie beside RGB images.
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
from tsmzoo.text import some

#: A number in a file name; from six digits on it may be a time with a fraction, `1305031102.175304`.
_NUMBER = re.compile(r"(\d{6,}\.\d+|\d+)")
#: A component of flow, next to the number, before or after it: `flow_x_`, `x_`, `000012-x_`, `_x`.
_COMPONENT = re.compile(r"(?:^|[_. -]|flow)([xyuv])[_. -]?$|^[_. -]?([xyuv])$", re.IGNORECASE)
_FLOW = re.compile(r"(?:^|[^a-z])(?:tvl1|(?:opt(?:ical)?)?flows?[xyuvi]?)(?:[^a-z]|$)", re.IGNORECASE)
_RGB = re.compile(r"(?:^|[^a-z])(?:rgb|img|image)(?:[^a-z]|$)", re.IGNORECASE)
#: Covers and thumbnails that programs write beside the images of a video.
_COVER = re.compile(r"(?:cover|folder|poster|preview|thumb|thumbnail)(?![a-z])", re.IGNORECASE)
#: A field of a template: a number, a component of flow, or any text (`*`).
_FIELD = re.compile(r"(\{[^{}]*\}|%0?\d*d|\*)")
#: EXIF's orientation tag, and the operation that turns such pixels upright.
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
#: The most templates that a message names.
_NAMED = 4


@dataclass(frozen=True)
class _ImageName:
    """The parts of an image's file name."""

    name: str
    #: Text before the number, the number (None if there is none), and text after it, without the extension.
    before: str
    number: str | None
    after: str

    @property
    def value(self) -> Decimal:
        return Decimal(self.number or -1)

    @property
    def shape(self) -> tuple[str, ...]:
        """Return the text of the name without numbers, in lower case."""
        return tuple(_NUMBER.split(Path(self.name).stem.lower())[::2])

    @property
    def component(self) -> str:
        """Return x, y, u or v for flow, else an empty string."""
        if self.number is None:
            return ""
        found = [match for text in (self.before, self.after) if (match := _COMPONENT.search(text))]
        return (found[0][1] or found[0][2]).lower() if found else ""

    def has(self, word: re.Pattern[str]) -> bool:
        return bool(word.search(self.before) or word.search(self.after))


def sequence(folder: Path, template: str | None = None, *, flow: bool = False) -> list[tuple[Path, ...]]:
    """Return the images of a folder in order, each as its files: one of RGB, or x and y of `flow` (or both in one).

    `template` selects the images where names alone do not, for instance `img_{:05d}.jpg`. Raises VideoError if there is
    no sequence, or more than one.
    """
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if _is_image(entry.name) and not entry.is_dir()]
    except OSError as error:
        raise VideoError(f"{folder}: cannot be read ({error.strerror}); check its permissions") from None
    if not names:
        raise VideoError(f"{folder}: holds no {'flow ' if flow else ''}images; put some there, or give a video")
    by_template = template is not None
    found = _parse_names(names) if template is None else _match_template(folder, names, template)
    if flow:
        return _flow(folder, found, by_template=by_template)
    if not by_template:
        components = _components(found)
        rgb = [one for one in found if one.component not in components and not one.has(_FLOW)]
        if not rgb:
            raise VideoError(
                f"{folder}: holds no images but of optical flow; give RGB images or a model of flow ({_choices(found)})"
            )
        found = rgb
    return [(folder / one.name,) for one in _ordered(folder, found, by_template=by_template)]


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_ENDINGS and not name.startswith(".")


def _components(found: Iterable[_ImageName]) -> tuple[str, ...]:
    """Return the names of the two components of flow, x and y or u and v; none if one of them is missing."""
    found_components = {one.component for one in found}
    return next((pair for pair in (("x", "y"), ("u", "v")) if found_components.issuperset(pair)), ())


def _flow(folder: Path, found: list[_ImageName], *, by_template: bool) -> list[tuple[Path, ...]]:
    if components := _components(found):
        x, y = (
            {
                one.value: one.name
                for one in _ordered(folder, [one for one in found if one.component == part], by_template=by_template)
            }
            for part in components
        )
        if both := sorted(x.keys() & y.keys()):
            return [(folder / x[number], folder / y[number]) for number in both]
        raise VideoError(f"{folder}: holds no flow images with both components; extract them anew")
    # MIT's Something-Something V2 keeps x in the red and y in the green of one image.
    whole = [one for one in found if one.has(_FLOW) and not one.component]
    whole = whole or [one for one in found if by_template or not (one.component or one.has(_RGB))]
    if not whole:
        raise VideoError(f"{folder}: holds no flow images; extract them, or choose an RGB model ({_choices(found)})")
    return [(folder / one.name,) for one in _ordered(folder, whole, by_template=by_template)]


# --- which number of a name ------------------------------------------------------------------------------------------


def _parse_names(names: Iterable[str]) -> list[_ImageName]:
    """Split names at the number that differs most among names of one shape: the first of `img_00001_96x96.jpg`."""
    shapes: dict[tuple[str, ...], list[tuple[str, list[str]]]] = defaultdict(list)
    for name in names:
        pieces = _NUMBER.split(Path(name).stem)
        shapes[tuple(piece.lower() for piece in pieces[::2])].append((name, pieces))
    found = []
    for shape, alike in shapes.items():
        places = range(1, 2 * len(shape) - 1, 2)
        # The number with most values; if several have as many, the last.
        values = {place: len({Decimal(pieces[place]) for _, pieces in alike}) for place in places}
        place = max(places, key=lambda place: (values[place], place), default=None)
        for name, pieces in alike:
            if place is None:
                found.append(_ImageName(name, pieces[0], None, ""))
            else:
                found.append(_ImageName(name, "".join(pieces[:place]), pieces[place], "".join(pieces[place + 1 :])))
    return found


def _match_template(folder: Path, names: list[str], template: str) -> list[_ImageName]:
    """Return the names that match a template: `img_{:05d}.jpg`, `img_%05d.jpg`, `flow_{}_{:05d}.jpg`, `cam1_*.png`."""
    pieces = _FIELD.split(re.sub(r"\*+", "*", template))
    last = max((place for place in range(1, len(pieces), 2) if pieces[place] != "*"), default=None)
    found = []
    for name in names:
        if (ends := _piece_ends(pieces, last, name)) is None:
            continue
        stem = Path(name).stem
        if last is None:
            found.append(_ImageName(name, stem, None, ""))
        else:
            begin, end = ends[last - 1], ends[last]
            found.append(_ImageName(name, name[:begin], name[begin:end], stem[end:]))
    if not found:
        raise VideoError(f"{folder}: holds no image named like {template}; {_choices(_parse_names(names))}")
    # Without a width any number matches; if both 1 and 00001 are there, those without zeros are meant.
    plain = [one for one in found if one.number is None or one.number == str(one.value)]
    return plain if plain and len({one.value for one in found if one.number}) < len(found) else found


def _piece_ends(pieces: Sequence[str], last: int | None, name: str) -> tuple[int, ...] | None:
    """Return where in `name` each piece of a template ends, matching early fields greedily; None if it does not match.

    Every other piece is a field; the one at `last` is the number. No position is tried twice: as a regular expression,
    a template of several fields could take exponential time.
    """
    if len(pieces) > 2 * len(name) + 3:
        return None  # one of two neighboring pieces has a character
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
    """Return the possible ends of a field that begins at `at`, longest first."""
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


def _ordered(folder: Path, found: list[_ImageName], *, by_template: bool) -> list[_ImageName]:
    """Return the images of the one sequence in order. Raises VideoError if there are several."""
    shapes: dict[tuple[str, ...], list[_ImageName]] = defaultdict(list)
    for one in found:
        if one.number is not None:
            shapes[one.shape].append(one)
    several = [group for group in shapes.values() if len(group) > 1]
    if len(several) > 1 and not by_template:
        raise VideoError(f"{folder}: holds several sequences of images; {_choices(found)}")
    chosen = several[0] if several and not by_template else found
    if doubtful := _doubtful_images(chosen, found):
        named = ", ".join(sorted(one.name for one in doubtful)[:_NAMED])
        raise VideoError(
            f"{folder}: holds a sequence of images and others that may be of it, {named}; {_choices(found)}"
        )
    first: dict[Decimal, _ImageName] = {}
    for one in chosen:
        if one.number is not None and (other := first.setdefault(one.value, one)) is not one:
            pair = " and ".join(sorted((one.name, other.name)))
            raise VideoError(f"{folder}: holds several images of number {one.number}, {pair}; {_choices(chosen)}")
    alike = len({(one.before.lower(), one.after.lower()) for one in chosen}) == 1
    return sorted(chosen, key=(lambda one: one.value) if alike or (by_template and several) else _natural_order)


def _doubtful_images(chosen: list[_ImageName], found: list[_ImageName]) -> list[_ImageName]:
    """Return the images beside a sequence that may belong to it.

    A cover does not, nor a single image without a number or with a number that the sequence has too.
    """
    names, values = {one.name for one in chosen}, {one.value for one in chosen}
    beside = [one for one in found if one.name not in names and not _COVER.match(one.name)]
    return beside if len(beside) > 1 else [one for one in beside if one.number and one.value not in values]


def _natural_order(named: _ImageName) -> list[tuple[Decimal, str]]:
    """Return a sort key that orders names as people do: 9 before 10."""
    pieces = _NUMBER.split(Path(named.name).stem)
    return [(Decimal(piece) if place % 2 else Decimal(-1), piece) for place, piece in enumerate(pieces)]


def _choices(found: Sequence[_ImageName]) -> str:
    """Return the hint that ends an error: which templates are there, and the option that selects one."""
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
    shown = some([*sorted(named[:_NAMED]), *named[_NAMED:]], _NAMED)
    return f"there is {shown}: choose with --images, '*' takes all by name"


def _text(named: _ImageName) -> tuple[str, str, str]:
    return named.before, named.after, Path(named.name).suffix


# --- opening ---------------------------------------------------------------------------------------------------------


def open_upright(path: Path, mode: str = "RGB") -> Image.Image:
    """Return an image in a Pillow `mode`, turned upright as its EXIF orientation says. Raises VideoError."""
    try:
        with files.opened(path) as file:
            if not file.read(1):
                raise ValueError("it is empty")
            file.seek(0)
            with Image.open(file) as image:
                image.load()  # some formats store the orientation after the pixels
                turn = _UPRIGHT.get(_orientation(image))
                upright = image if turn is None else image.transpose(turn)
                return upright.convert(mode)
    # Pillow's errors on bad files; RuntimeError comes from its AVIF decoder.
    except (OSError, SyntaxError, ValueError, RuntimeError, Image.DecompressionBombError) as error:
        why = getattr(error, "strerror", None) or error
        raise VideoError(
            f"{path.parent}: {path.name}: cannot be decoded ({why}); delete it, or give other images"
        ) from None


def _orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, struct.error):  # Pillow's errors on broken EXIF
        return 1
    return orientation if isinstance(orientation, int) else 1
