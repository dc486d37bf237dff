"""Read TensorFlow checkpoints: `NAME.index` and `NAME.data-00000-of-00001`, bare (I3D) or in an archive (MoViNet).

TensorFlow's own reader does it. No torch here: the two need not be in one environment to test this.
"""

from __future__ import annotations

import shutil
import tarfile
import tempfile
import zlib
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tsmzoo.errors import CheckpointError
from tsmzoo.system.quiet import quiet
from tsmzoo.text import of_error

if TYPE_CHECKING:
    from tsmzoo.typing import Array

INDEX = ".index"
#: The graph, which is not read; but a user may name the checkpoint by it.
_META = ".meta"
#: Published checkpoints have one data file.
DATA = ".data-00000-of-00001"
#: How gzip's files begin.
GZIP = b"\x1f\x8b"
#: The most bytes that are unpacked of an archive, more than any network here has.
_MOST_UNPACKED = 2**30


def data_file(path: Path) -> Path | None:
    """Return the data file of the checkpoint at `path`, which is one of its files, their NAME, or their folder.

    None if there is no such checkpoint. Raises CheckpointError if the folder holds several, or a file is missing.
    """
    if path.is_dir():
        names = sorted({file.with_suffix("") for file in path.iterdir() if file.suffix in (INDEX, DATA)})
    elif path.suffix in (INDEX, DATA, _META):
        names = [path.with_suffix("")]
    else:
        names = [] if path.exists() else [path]
    if len(names) > 1:
        raise CheckpointError(f"holds several checkpoints; give one of them, for instance {names[-1]}")
    for name in names:
        files = [name.with_name(name.name + suffix) for suffix in (INDEX, DATA)]
        missing = [file.name for file in files if not file.is_file()]
        if len(missing) == 1:
            raise CheckpointError(f"lacks {missing[0]}, which belongs to it; put that beside the other file")
        if not missing:
            return files[1]
    return None


def read(data: Path) -> dict[str, Array]:
    """Return the weights of a checkpoint by their TensorFlow names, with axes in torch's order.

    Batch norms without a scale get a scale of ones. Raises CheckpointError if the files are damaged, or TensorFlow
    (the extra `tensorflow`) is not installed.
    """
    with quiet():
        try:
            import tensorflow
        except ModuleNotFoundError as error:
            raise CheckpointError(
                f"is a TensorFlow checkpoint and needs {error.name}, which is not installed: "
                "pip install 'tsmzoo[tensorflow]'"
            ) from None
        try:
            reader = tensorflow.train.load_checkpoint(str(data.with_suffix("")))
            types = reader.get_variable_to_dtype_map()
            weights = [name for name in types if _is_weight(name, types[name].is_floating)]
            shapes = reader.get_variable_to_shape_map()
            # The index alone determines how much is allocated for a tensor.
            claimed = sum(prod(shapes[name]) * types[name].size for name in weights)
            if claimed > (size := data.stat().st_size):
                raise ValueError(f"its index tells of {claimed} bytes, {data.name} has {size}")
            arrays = {name: reader.get_tensor(name) for name in weights}
        except Exception as error:  # TensorFlow raises a dozen types for a damaged file
            raise CheckpointError(
                f"is damaged or not a TensorFlow checkpoint ({of_error(error)}); get it again"
            ) from None
    state = {name: in_torchs_order(name, np.asarray(array, np.float32)) for name, array in arrays.items()}
    scales = {
        name.removesuffix("beta") + "gamma": np.ones_like(shift)
        for name, shift in state.items()
        if name.endswith("/batch_norm/beta")
    }
    return scales | state


def read_archive(path: Path) -> dict[str, Array]:
    """Return `read` of the one checkpoint in a .tar.gz. Raises CheckpointError, too, if there is none, or several."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with tarfile.open(path, "r:gz") as archive:
                left = _MOST_UNPACKED
                for member in archive:
                    name = Path(member.name).name  # whatever its folder, it lands in ours
                    if not member.isreg() or name.startswith("._") or not name.endswith((INDEX, DATA)):
                        continue
                    if (left := left - member.size) < 0:
                        raise ValueError(f"it unfolds to more than {_MOST_UNPACKED} bytes")
                    unpacked = archive.extractfile(member)
                    assert unpacked is not None  # it is a regular file
                    with Path(folder, name).open("xb") as file:  # two of one name are refused
                        shutil.copyfileobj(unpacked, file)
        except FileExistsError:
            raise CheckpointError("has two files of one name, and nothing says which is meant; get it again") from None
        except (tarfile.TarError, zlib.error, EOFError, ValueError) as error:
            raise CheckpointError(f"is damaged or not a .tar.gz ({of_error(error)}); get it again") from None
        data = data_file(Path(folder))
        if data is None:
            raise CheckpointError("is an archive without a TensorFlow checkpoint; give a checkpoint file")
        return read(data)


def _is_weight(name: str, floating: bool) -> bool:
    """Say whether a variable is a weight, not the training step or the optimizer's momentum."""
    return floating and not name.endswith("/Momentum") and "/.OPTIMIZER_SLOT/" not in name


def in_torchs_order(name: str, array: Array) -> Array:
    """Return a weight of TensorFlow or Flax with its axes in torch's order, as a view."""
    if array.ndim and array.size == array.shape[-1]:
        return array.reshape(-1)  # batch norm: shape C, or 1, 1, 1, 1, C in the Kinetics-600 file
    if array.ndim == 5:
        return array.transpose(4, 3, 0, 1, 2)  # from T, H, W, in, out
    if array.ndim == 4:  # from H, W, in, out; depthwise from H, W, in, 1
        return array.transpose((2, 3, 0, 1) if "/depthwise_kernel/" in name else (3, 2, 0, 1))
    return array
