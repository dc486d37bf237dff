"""Generate the `motion` dataset: short clips whose classes differ in the order of the frames alone.

Classes come in pairs, each the other played backwards. A scene is drawn once and written twice, forwards
and backwards, so that a model which ignores the order of the frames answers both alike and is right in one
of them at most: 50 % is its bound by construction.

No frame alone gives the class away either. What moves goes around a circle: its phase starts anywhere and
advances at a steady rate, and it is the sign of that rate that makes the class. So every frame, the first and
the last among them, looks alike in both classes of a pair. Everything else in a scene (the camera's drift,
distractors that swing or throb, noise, flicker) is as likely backwards as forwards.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
from numpy.random import Generator
from PIL import Image

from tsmzoo.callbacks import silent
from tsmzoo.data import dataset
from tsmzoo.data.encode import encode
from tsmzoo.errors import DataError
from tsmzoo.system import files, processes
from tsmzoo.typing import Array

#: The class that a scene shows when it is played as drawn, and when it is played backwards.
PAIRS = (
    ("moving right", "moving left"),
    ("moving down", "moving up"),
    ("coming closer", "going away"),
    ("turning clockwise", "turning anticlockwise"),
    ("opening", "closing"),
    ("appearing", "vanishing"),
    ("scattering", "gathering"),
)
CLASSES = tuple(name for pair in PAIRS for name in pair)
#: Odd, so that the centres of 8 segments are the same frames forwards and backwards: 1, 3 … 15 of 0 … 16.
FRAMES = 17
FPS = 8
#: Pixels; a scene is drawn in coordinates from -1 (left, top) to 1 (right, bottom).
SIDE = 96

_MARGIN = 12
_TIME = np.linspace(0, 1, FRAMES, dtype=np.float32)
_AXIS = ((np.arange(SIDE, dtype=np.float32) + 0.5) / SIDE * 2 - 1).astype(np.float32)


def write(folder: Path, videos: int, seed: int, progress: Callable[[int, int], None] = silent) -> None:
    """Write an even number of `videos` and their list to `folder`; half of them are the other half backwards.

    The same `seed` gives the same files. `progress` is called with the number of videos written and the total. An
    interrupted run leaves nothing in `folder`. Raises DataError if `folder` is not empty.
    """
    if videos < 2 or videos % 2:
        raise DataError(f"{videos} videos: every scene is written forwards and backwards; give an even number")
    folder = folder.resolve()
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise DataError(f"{folder}: is not empty; give a new folder")
        _write(folder, videos, seed, progress)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror}); give another folder") from None
    except BrokenProcessPool:
        raise DataError(
            f"{folder}: a process that draws died, perhaps for want of memory; nothing was written, run it again"
        ) from None


def _write(folder: Path, videos: int, seed: int, progress: Callable[[int, int], None]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Names in random order: else the labels of neighbors would reveal each other.
    names = [f"videos/{number:06d}.mp4" for number in np.random.default_rng(seed).permutation(videos)]
    with files.replacing(folder) as part:
        (part / "videos").mkdir(parents=True)
        items: list[tuple[str, int]] = []
        with ProcessPoolExecutor(mp_context=processes.Spawn(), initializer=processes.follow_parent) as pool:
            twins = [(names[2 * index], names[2 * index + 1]) for index in range(videos // 2)]
            jobs = [pool.submit(_write_scene, part, index, seed, pair) for index, pair in enumerate(twins)]
            for job in as_completed(jobs):
                items += job.result()
                progress(len(items), videos)
        dataset.write(part, sorted(items), CLASSES)


def _write_scene(folder: Path, index: int, seed: int, names: tuple[str, str]) -> list[tuple[str, int]]:
    frames, label = scene(index, seed)
    encode(folder / names[0], frames, FPS)
    encode(folder / names[1], frames[::-1], FPS)
    return [(names[0], label), (names[1], label + 1)]


def scene(index: int, seed: int) -> tuple[Array, int]:
    """Return scene `index` of `seed`: frames, T, H, W, 3, uint8, and its label when played forwards.

    Pairs take turns, so that each has its share. The label when played backwards is the next one.
    """
    rng = np.random.default_rng([seed, index])
    pair = index % len(PAIRS)
    mean = rng.uniform(0.15, 0.85, 3)
    drift = _drift(rng)
    image = _background(rng, mean, drift)
    distractors = [_distractor(rng, mean, drift) for _ in range(rng.integers(0, 3))]
    # Some distractors pass behind what counts, some in front of it.
    layers = [*distractors[1:], _MOTIONS[pair](rng, mean, drift), *distractors[:1]]
    for alpha, colour in layers:
        image += alpha[..., None] * (colour - image)
    image *= 1 + rng.normal(0, 0.03, (FRAMES, 1, 1, 1)).astype(np.float32)
    image += rng.uniform(0, 0.04) * rng.standard_normal(image.shape, dtype=np.float32)
    return (image.clip(0, 1) * 255).round().astype(np.uint8), 2 * pair


# --- the scene -----------------------------------------------------------------------------------------------------

#: Opacity, T, H, W, and colour, broadcastable to T, H, W, 3.
Layer = tuple[Array, Array]


def _drift(rng: Generator) -> Array:
    """Return the camera's way, T, 2 (x, y): a slow pan in any direction, and a shake."""
    angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.3)
    pan = np.outer(_TIME - 0.5, [np.cos(angle), np.sin(angle)]) * length
    return np.asarray(pan + rng.normal(0, 0.008, (FRAMES, 2)), np.float32)


def _background(rng: Generator, mean: Array, drift: Array) -> Array:
    """Return a texture of three scales that moves with the camera: T, H, W, 3."""
    side = SIDE + 2 * _MARGIN
    canvas = np.zeros((side, side, 3), np.float32) + mean.astype(np.float32)
    for cells in (4, 10, 24):
        grey = rng.uniform(0.01, 0.05) * rng.standard_normal((cells, cells, 1))
        coarse = (grey + 0.01 * rng.standard_normal((cells, cells, 3))).astype(np.float32)
        for channel in range(3):
            fine = Image.fromarray(coarse[..., channel]).resize((side, side), Image.Resampling.BICUBIC)
            canvas[..., channel] += np.asarray(fine)
    frames = []
    for x, y in drift * SIDE / 2 + _MARGIN:
        column, row = int(x), int(y)
        right, down = x - column, y - row  # between pixels, the shares of the neighbours
        part = canvas[row : row + SIDE + 1, column : column + SIDE + 1]
        part = part[:-1] * (1 - down) + part[1:] * down
        frames.append(part[:, :-1] * (1 - right) + part[:, 1:] * right)
    return np.stack(frames)


def _colour(rng: Generator, *others: Array) -> Array:
    """Return a colour that stands out from each of `others`."""
    while True:
        colour = rng.uniform(0, 1, 3)
        if all(np.abs(colour - other).max() > 0.45 for other in others):
            return colour.astype(np.float32)


# Shapes: signed distances from the edge, negative inside, in units of the shape's radius.
_SHAPES: dict[str, Callable[[Array, Array], Array]] = {
    "disc": lambda u, v: np.hypot(u, v) - 1,
    "square": lambda u, v: np.maximum(abs(u), abs(v)) - 0.8,
    "bar": lambda u, v: np.maximum(abs(u) - 1, abs(v) - 0.45),
    "triangle": lambda u, v: np.maximum(0.866 * abs(u) + 0.5 * v, -v) - 0.5,
    "cross": lambda u, v: np.minimum(
        np.maximum(abs(u) - 1, abs(v) - 0.35), np.maximum(abs(v) - 1, abs(u) - 0.35)
    ),
    "ring": lambda u, v: abs(np.hypot(u, v) - 0.75) - 0.25,
}  # fmt: skip


def _local(centre: Array, angle: Array | float, radius: Array | float) -> tuple[Array, Array]:
    """Return the coordinates, T, H, W each, of a shape at `centre` (T, 2) that is turned clockwise by `angle`."""
    x = _AXIS[None, None, :] - centre[:, 0, None, None]
    y = _AXIS[None, :, None] - centre[:, 1, None, None]
    cos, sin = (np.reshape(f(angle), (-1, 1, 1)).astype(np.float32) for f in (np.cos, np.sin))
    unit = np.reshape(np.asarray(radius, np.float32), (-1, 1, 1))
    return (x * cos + y * sin) / unit, (y * cos - x * sin) / unit


def _inside(distance: Array, radius: Array | float) -> Array:
    """Return opacity 0…1 from a signed distance: an edge one pixel wide."""
    pixels = np.reshape(np.asarray(radius, np.float32), (-1, 1, 1)) * (SIDE / 2)
    return np.asarray(np.clip(0.5 - distance * pixels, 0, 1))


def _paint(rng: Generator, u: Array, mean: Array) -> Array:
    """Return the colours of a surface, T, H, W, 3: plain, striped, or in two halves."""
    first = _colour(rng, mean)
    second = _colour(rng, mean, first)
    pattern = rng.choice(["plain", "stripes", "halves"])
    if pattern == "plain":
        return first
    wave = u if pattern == "halves" else np.sin(rng.uniform(4, 9) * u + rng.uniform(0, 6))
    share = np.clip(0.5 + 8 * wave, 0, 1)[..., None]
    return np.asarray(first + share * (second - first), np.float32)


def _place(rng: Generator, drift: Array, reach: float = 0.45) -> Array:
    """Return a place somewhere in the picture's middle that moves with the scene: T, 2."""
    return np.asarray(rng.uniform(-reach, reach, 2) - drift, np.float32)


def _distractor(rng: Generator, mean: Array, drift: Array) -> Layer:
    """Return a thing that stays where it is, or swings, rocks or throbs about there: no different backwards."""
    kind = rng.choice(["still", "swing", "rock", "throb"])
    wave = np.sin(2 * np.pi * (rng.uniform(1, 2.5) * _TIME + rng.uniform(0, 1)))
    angle = rng.uniform(0, 2 * np.pi) + (0.4 * wave if kind == "rock" else 0)
    radius = rng.uniform(0.08, 0.2) * (1 + (0.2 * wave if kind == "throb" else 0))
    centre = _place(rng, drift, reach=0.9)
    if kind == "swing":
        towards = rng.uniform(0, 2 * np.pi)
        centre = centre + 0.1 * np.outer(wave, [np.cos(towards), np.sin(towards)]).astype(np.float32)
    u, v = _local(centre, angle, radius)
    shape = _SHAPES[rng.choice(list(_SHAPES))]
    alpha = _inside(shape(u, v), radius)
    return np.broadcast_to(alpha, (FRAMES, SIDE, SIDE)), _paint(rng, u, mean)


# --- what moves: one function a pair, drawn as the pair's first class ------------------------------------------------


def _phase(rng: Generator, least: float = 0.5, most: float = 1.1) -> Array:
    """Return a phase 0…1, T, that starts anywhere and goes `least` to `most` times round."""
    return np.asarray((rng.uniform(0, 1) + rng.uniform(least, most) * _TIME) % 1, np.float32)


def _thing(rng: Generator, mean: Array, centre: Array, radius: Array | float) -> Layer:
    """Return a thing of any shape, with a slight rocking of its own."""
    rocking = 0.2 * np.sin(2 * np.pi * (rng.uniform(0.5, 2) * _TIME + rng.uniform(0, 1)))
    u, v = _local(centre, rng.uniform(0, 2 * np.pi) + rocking, radius)
    shape = _SHAPES[rng.choice(list(_SHAPES))]
    return _inside(shape(u, v), radius), _paint(rng, u, mean)


def _move(axis: int) -> Callable[[Generator, Array, Array], Layer]:
    def layer(rng: Generator, mean: Array, drift: Array) -> Layer:
        radius = rng.uniform(0.2, 0.45)
        centre = _place(rng, drift, reach=0.55)
        # Out of the picture on one side, it comes in again on the other.
        centre[:, axis] = (2 * _phase(rng) - 1) * (1 + radius)
        return _thing(rng, mean, centre, radius)

    return layer


def _grow(rng: Generator, mean: Array, drift: Array) -> Layer:
    small, large = rng.uniform(0.1, 0.18), rng.uniform(0.6, 0.85)
    radius = small * (large / small) ** _phase(rng)
    return _thing(rng, mean, _place(rng, drift, reach=0.35), radius)


def _turn(rng: Generator, mean: Array, drift: Array) -> Layer:
    radius = rng.uniform(0.45, 0.7)
    # A square turned by a quarter is a square again: slow enough that frames do not skip that far.
    u, v = _local(_place(rng, drift, reach=0.25), 2 * np.pi * (_phase(rng, 0.3, 0.7) + rng.uniform(0, 1)), radius)
    shape = _SHAPES[rng.choice(list(_SHAPES))]
    shade = np.clip(0.5 + 8 * u, 0, 1)[..., None]  # half of it is dark, so that a disc's turning is seen, too
    return _inside(shape(u, v), radius), np.asarray(_colour(rng, mean, np.zeros(3)) * (1 - 0.85 * shade), np.float32)


def _open(rng: Generator, mean: Array, drift: Array) -> Layer:
    radius, gap = rng.uniform(0.4, 0.65), _phase(rng)[:, None, None]
    u, v = _local(_place(rng, drift, reach=0.35), rng.uniform(0, 2 * np.pi), radius)
    kind = rng.choice(["mouth", "doors", "iris"])
    shape = _SHAPES["disc" if kind == "mouth" else str(rng.choice(["disc", "square"]))]
    body = _inside(shape(u, v), radius)
    colour = _colour(rng, mean, np.zeros(3))
    if kind == "mouth":  # the sector is gone, and one sees through
        outside = (abs(np.arctan2(v, u)) - 2.6 * gap) * np.hypot(u, v)
        return body * _inside(-outside, radius), colour
    width = 0.8 * gap
    hole = _inside((abs(u) if kind == "doors" else np.hypot(u, v)) - width, radius)[..., None]
    return body, np.asarray(colour * (1 - 0.85 * hole), np.float32)  # inside it is dark


def _appear(rng: Generator, mean: Array, drift: Array) -> Layer:
    radius, seen = rng.uniform(0.3, 0.6), _phase(rng)[:, None, None]
    alpha, colour = _thing(rng, mean, _place(rng, drift, reach=0.4), radius)
    if rng.random() < 0.5:  # a fade; else it dissolves, grain by grain
        return alpha * seen, colour
    grains = Image.fromarray(rng.random((24, 24), dtype=np.float32)).resize((SIDE, SIDE), Image.Resampling.NEAREST)
    return alpha * (np.asarray(grains) < seen), colour


def _scatter(rng: Generator, mean: Array, drift: Array) -> Layer:
    count, radius, away = int(rng.integers(4, 9)), rng.uniform(0.09, 0.15), 0.1 + 0.7 * _phase(rng)
    centre = _place(rng, drift, reach=0.25)
    angles = rng.uniform(0, 2 * np.pi) + np.arange(count) * 2 * np.pi / count + rng.uniform(-0.25, 0.25, count)
    shape = _SHAPES[rng.choice(["disc", "square", "triangle"])]
    alpha = np.zeros((FRAMES, SIDE, SIDE), np.float32)
    for angle in angles:
        way = np.outer(away * rng.uniform(0.8, 1.1), [np.cos(angle), np.sin(angle)])
        u, v = _local((centre + way).astype(np.float32), angle, radius)
        alpha = np.maximum(alpha, _inside(shape(u, v), radius))
    return alpha, _colour(rng, mean)


#: In the order of PAIRS.
_MOTIONS = (_move(0), _move(1), _grow, _turn, _open, _appear, _scatter)
