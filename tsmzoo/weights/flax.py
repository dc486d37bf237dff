"""Find the variables of a Flax network in a pickle: dicts of dicts of NumPy arrays. Nothing in it is executed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from tsmzoo.errors import CheckpointError
from tsmzoo.weights.tensorflow import in_torchs_order
from tsmzoo.weights.unpickling import NumpyObject

if TYPE_CHECKING:
    from tsmzoo.typing import Array

_DEEPEST = 8
#: The most arrays, dicts and other objects.
_MOST = 20_000


def variables(content: Any) -> dict[str, Array]:
    """Return the arrays in an unpickled dict of dicts by their path, with axes in torch's order.

    For example `params/Conv3d_1a_7x7/Conv_0/kernel`. Batch norms without a scale get a scale of ones. What is no
    little-endian array of floating-point numbers is left out. Nothing is copied, however often a file refers to it: all
    are views. Raises ValueError if a shape does not fit its data, CheckpointError if there are too many objects.
    """
    found = list(islice(_walk("", content), _MOST + 1))
    if len(found) > _MOST:
        raise CheckpointError(f"holds more than {_MOST} objects, more than any network here; give a checkpoint file")
    state = {name: in_torchs_order(name, array) for name, value in found if (array := _array(value)) is not None}
    scales = {
        name.removesuffix("bias") + "scale": np.broadcast_to(np.float32(1), shift.shape)
        for name, shift in state.items()
        if re.search(r"/BatchNorm_\d+/bias$", name)
    }
    return scales | state


def _walk(path: str, value: Any, deep: int = 0) -> Iterator[tuple[str, Any]]:
    yield path, value
    if isinstance(value, dict) and deep < _DEEPEST:  # a dict may contain itself
        for key, inner in value.items():
            yield from _walk(f"{path}/{key}" if path else key, inner, deep + 1)


def _array(value: Any) -> Array | None:
    """Return an array as NumPy would: its state is version, shape, type, whether the first axis is innermost, bytes."""
    match value:
        case NumpyObject(
            state=(_, tuple(shape), NumpyObject(args=(code, *_), state=(_, "<", *_)), fortran, bytes(data))
        ):
            if code in ("f2", "f4", "f8") and all(type(length) is int for length in shape):
                return np.frombuffer(data, f"<{code}").reshape(shape, order="F" if fortran else "C")
    return None
