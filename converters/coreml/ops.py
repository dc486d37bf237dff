"""The operations of ML Programs that our exports hold, each by its documented definition.

Source: coremltools' reference of MIL operations (coremltools 9, `converters/mil/mil/ops/defs`), whose names these
functions and their parameters bear. What stands before the `*` are tensors, one or several; what stands behind it
are constants of the program, whose types and ranges the annotations state and `interpreter.py` enforces. A parameter
with a default may be absent from a program.

What the reference leaves open: in which precision an operation computes. Here each of `COMPUTED` works in fp32 on
operands as they are stored, and `interpreter.py` rounds the result once to the type that the program declares; each of
`EXACT`, which move numbers, works in the operands' own type.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import torch
from msgspec import Meta
from torch import Tensor
from torch.nn import functional as F

PadType = Literal["valid", "custom", "same", "same_lower"]
TypeName = Literal["bool", "fp16", "fp32", "int8", "int16", "int32", "uint8", "uint16", "uint32"]
Positive = Annotated[int, Meta(ge=1)]
#: Elements before and after.
_Pair = tuple[int, int]

#: torch's types by their names in ML Programs.
DTYPES: dict[TypeName, torch.dtype] = {
    "bool": torch.bool,
    "fp16": torch.float16,
    "fp32": torch.float32,
    "int8": torch.int8,
    "int16": torch.int16,
    "int32": torch.int32,
    "uint8": torch.uint8,
    "uint16": torch.uint16,
    "uint32": torch.uint32,
}

# --- convolutions, pools, products -----------------------------------------------------------------------------------


def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    strides: list[Positive] | None = None,
    pad_type: PadType = "valid",
    pad: list[int] | None = None,
    dilations: list[Positive] | None = None,
    groups: Positive = 1,
) -> Tensor:
    """x: N, C, *D; weight: out, C / groups, *K, over one to three spatial axes; a correlation, as in torch."""
    axes = x.ndim - 2
    strides, dilations = strides or [1] * axes, dilations or [1] * axes
    reach = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilations, strict=True)]
    pairs = _pads(pad_type, pad, x.shape[2:], reach, strides)
    function: Callable[..., Tensor] = (F.conv1d, F.conv2d, F.conv3d)[axes - 1]
    if all(before == after for before, after in pairs):
        return function(x, weight, bias, strides, [before for before, _ in pairs], dilations, groups)
    return function(F.pad(x, _last_first(pairs)), weight, bias, strides, 0, dilations, groups)


def _pads(
    pad_type: PadType, pad: list[int] | None, sizes: Sequence[int], reach: Sequence[int], strides: Sequence[int]
) -> list[_Pair]:
    """Return what is padded of each spatial axis.

    `same`: as much as gives ceil(size / stride) places, an odd element after, as in TensorFlow; `same_lower`: before.
    (The reference's text divides the kernel by two, whatever the stride; its shape inference, which the declared
    shapes come from, does as is done here.)
    """
    if pad_type == "custom":
        pad = pad or [0] * 2 * len(sizes)
        return list(zip(pad[::2], pad[1::2], strict=True))
    if pad and any(pad):
        raise ValueError(f"pad is {pad}, but pad_type {pad_type}")
    if pad_type == "valid":
        return [(0, 0)] * len(sizes)
    pairs = []
    for size, k, stride in zip(sizes, reach, strides, strict=True):
        total = max((-(-size // stride) - 1) * stride + k - size, 0)
        small, large = total // 2, total - total // 2
        pairs.append((small, large) if pad_type == "same" else (large, small))
    return pairs


def _last_first(pairs: Sequence[_Pair]) -> list[int]:
    """Return pads in the order of F.pad."""
    return [n for pair in reversed(pairs) for n in pair]


def max_pool(
    x: Tensor,
    *,
    kernel_sizes: list[Positive],
    strides: list[Positive] | None = None,
    pad_type: PadType,
    pad: list[int] | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    """x: N, C, *D. Padding is never the maximum."""
    functions = (F.max_pool1d, F.max_pool2d, F.max_pool3d)
    return _pool(functions, x, kernel_sizes, strides, pad_type, pad, ceil_mode, float("-inf"))


def avg_pool(
    x: Tensor,
    *,
    kernel_sizes: list[Positive],
    strides: list[Positive] | None = None,
    pad_type: PadType,
    pad: list[int] | None = None,
    exclude_padding_from_average: bool = False,
    ceil_mode: bool = False,
) -> Tensor:
    """x: N, C, *D. Padding counts as zeros, or not at all; what ceil_mode adds behind it never counts."""
    functions = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)
    values = _pool(functions, x, kernel_sizes, strides, pad_type, pad, ceil_mode, 0.0)
    if not exclude_padding_from_average:
        return values
    ones = torch.ones_like(x[:1, :1])
    return values / _pool(functions, ones, kernel_sizes, strides, pad_type, pad, ceil_mode, 0.0)


def _pool(
    functions: tuple[Callable[..., Tensor], ...],
    x: Tensor,
    kernel: list[int],
    strides: list[int] | None,
    pad_type: PadType,
    pad: list[int] | None,
    ceil_mode: bool,
    padding: float,
) -> Tensor:
    """Pool over windows of x padded by `padding`.

    With ceil_mode ("same as PyTorch's") sizes are rounded up, but no window begins behind the end of x. (Without
    padding coremltools counts one that does; the shape that it declares is then found to be wrong.)
    """
    strides = strides or [1] * len(kernel)
    function = functions[len(kernel) - 1]
    pairs = _pads(pad_type, pad, x.shape[2:], kernel, strides)
    even = all(before == after for before, after in pairs)
    if ceil_mode and (pad_type in ("same", "same_lower") or not even):
        raise ValueError(f"ceil_mode with pad_type {pad_type}, pad {pad}")
    if ceil_mode or (even and all(2 * before <= k for (before, _), k in zip(pairs, kernel, strict=True))):
        return function(x, kernel, strides, [before for before, _ in pairs], ceil_mode=ceil_mode)
    return function(F.pad(x, _last_first(pairs), value=padding), kernel, strides)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x: *, in; weight: out, in."""
    return F.linear(x, weight, bias)


def matmul(x: Tensor, y: Tensor, *, transpose_x: bool = False, transpose_y: bool = False) -> Tensor:
    """Return the product over the last axis of x and the last but one of y; the axes in front broadcast.

    Transposing swaps the last two axes first, and leaves vectors alone.
    """
    x = x.transpose(-1, -2) if transpose_x and x.ndim > 1 else x
    y = y.transpose(-1, -2) if transpose_y and y.ndim > 1 else y
    return torch.matmul(x, y)


def batch_norm(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    *,
    epsilon: float = 1e-5,
) -> Tensor:
    """Return gamma * (x - mean) / sqrt(variance + epsilon) + beta by channel of x: N, C, *D."""
    return F.batch_norm(x, mean, variance, gamma, beta, False, 0.0, epsilon)


# --- activations and arithmetic --------------------------------------------------------------------------------------


def clip(x: Tensor, *, alpha: float, beta: float) -> Tensor:
    """Return x between alpha and beta."""
    return torch.clamp(x, alpha, beta)


def leaky_relu(x: Tensor, *, alpha: float) -> Tensor:
    """Return x, times alpha where it is negative."""
    return F.leaky_relu(x, alpha)


def sigmoid_hard(x: Tensor, *, alpha: float, beta: float) -> Tensor:
    """Return alpha * x + beta between 0 and 1."""
    return torch.clamp(alpha * x + beta, 0, 1)


def thresholded_relu(x: Tensor, *, alpha: float) -> Tensor:
    """Return x, or 0 where it is below alpha."""
    return torch.where(x >= alpha, x, 0)


def gelu(x: Tensor, *, mode: Literal["EXACT", "TANH_APPROXIMATION", "SIGMOID_APPROXIMATION"] = "EXACT") -> Tensor:
    """Return x times the normal distribution's share below x, or an approximation."""
    if mode == "SIGMOID_APPROXIMATION":
        return x * torch.sigmoid(1.702 * x)
    return F.gelu(x, approximate="none" if mode == "EXACT" else "tanh")


def softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    """Return exp(x) over its sum along axis."""
    return F.softmax(x, axis)


def rsqrt(x: Tensor, *, epsilon: float = 1e-12) -> Tensor:
    """Return 1 / sqrt(x + epsilon)."""
    return torch.rsqrt(x + epsilon)


def _unary(function: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    def operation(x: Tensor) -> Tensor:
        return function(x)

    return operation


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """Broadcasting as in NumPy."""

    def operation(x: Tensor, y: Tensor) -> Tensor:
        return function(x, y)

    return operation


def _reduction(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Over all axes where none are given."""

    def operation(x: Tensor, *, axes: list[int] | None = None, keep_dims: bool = False) -> Tensor:
        return function(x, dim=list(range(x.ndim)) if axes is None else axes, keepdim=keep_dims)

    return operation


# --- what only moves numbers -----------------------------------------------------------------------------------------


def cast(x: Tensor, *, dtype: TypeName) -> Tensor:
    """Return x in another type: the nearest fp16, or the integer next towards zero."""
    return x.to(DTYPES[dtype])


def concat(values: Sequence[Tensor], *, axis: int, interleave: bool = False) -> Tensor:
    """Join along axis; interleaved, the first slices of all come first, then the second ones."""
    if not interleave:
        return torch.cat(list(values), axis)
    axis %= values[0].ndim
    return torch.stack(list(values), axis + 1).flatten(axis, axis + 1)


def stack(values: Sequence[Tensor], *, axis: int) -> Tensor:
    """Join along a new axis."""
    return torch.stack(list(values), axis)


def split(
    x: Tensor, *, num_splits: Positive | None = None, split_sizes: list[int] | None = None, axis: int
) -> tuple[Tensor, ...]:
    """Cut along axis into parts of the sizes given, or into so many equal ones."""
    length = x.shape[axis]
    if split_sizes is None:
        if num_splits is None or length % num_splits:
            raise ValueError(f"{length} elements do not divide into num_splits {num_splits}")
        split_sizes = [length // num_splits] * num_splits
    elif num_splits not in (None, len(split_sizes)):
        raise ValueError(f"num_splits is {num_splits}, but split_sizes {split_sizes}")
    return torch.split(x, split_sizes, axis)


def slice_by_index(
    x: Tensor,
    *,
    begin: list[int],
    end: list[int],
    stride: list[Positive] | None = None,
    begin_mask: list[bool] | None = None,
    end_mask: list[bool] | None = None,
    squeeze_mask: list[bool] | None = None,
) -> Tensor:
    """Return x[begin:end:stride] by axis, negative indices counted from the end.

    A mask that is True takes the axis from its beginning, to its end, or at `begin` alone, without the axis.
    """
    whole = [False] * x.ndim
    masks = zip(begin_mask or whole, end_mask or whole, squeeze_mask or whole, strict=True)
    index: list[int | slice] = []
    for first, last, step, (no_begin, no_end, squeeze) in zip(begin, end, stride or [1] * x.ndim, masks, strict=True):
        first = 0 if no_begin else first
        index.append(first if squeeze else slice(first, None if no_end else last, step))
    return x[tuple(index)]


def slice_by_size(x: Tensor, *, begin: list[int], size: list[int]) -> Tensor:
    """Return so many elements from `begin` on, by axis; -1 takes all that are left."""
    for axis, (first, count) in enumerate(zip(begin, size, strict=True)):
        first = first + x.shape[axis] if first < 0 else first
        x = x.narrow(axis, first, x.shape[axis] - first if count == -1 else count)
    return x


def reshape(x: Tensor, *, shape: list[int]) -> Tensor:
    """Return x in another shape: 0 keeps the axis that stands there (of equal ranks alone), one -1 takes the rest."""
    if 0 in shape and len(shape) != x.ndim:
        raise ValueError(f"shape {shape} keeps axes of another rank, {x.ndim}")
    return x.reshape([n or x.shape[axis] for axis, n in enumerate(shape)])


def transpose(x: Tensor, *, perm: list[int]) -> Tensor:
    """Permute the axes."""
    return x.permute(perm)


def expand_dims(x: Tensor, *, axes: list[int]) -> Tensor:
    """Insert axes of length 1 that have these places in the result."""
    rank = x.ndim + len(axes)
    for axis in sorted(axis + rank if axis < 0 else axis for axis in axes):
        x = x.unsqueeze(axis)
    return x


def squeeze(x: Tensor, *, axes: list[int] | None = None) -> Tensor:
    """Leave out these axes, or all, where their length is 1; others stay."""
    return torch.squeeze(x, tuple(range(x.ndim) if axes is None else axes))


def pad(
    x: Tensor,
    *,
    pad: list[Annotated[int, Meta(ge=0)]],
    mode: Literal["constant", "reflect", "replicate"] = "constant",
    constant_val: float = 0.0,
) -> Tensor:
    """Pad the last axes, given in order: by a constant, by a mirror image without the edge, or by the edge."""
    pairs = list(zip(pad[::2], pad[1::2], strict=True))
    if mode == "constant":
        return F.pad(x, _last_first(pairs), value=constant_val)
    for axis, (before, after) in enumerate(pairs, start=x.ndim - len(pairs)):
        length = x.shape[axis]
        index = torch.arange(-before, length + after)
        if mode == "reflect":
            if max(before, after) >= length:
                raise ValueError(f"pad {pad} reflects more than there is: {length} elements")
            index = (length - 1) - (length - 1 - index.abs()).abs()
        x = x.index_select(axis, index.clamp(0, length - 1))
    return x


def gather(
    x: Tensor, indices: Tensor, *, axis: int = 0, batch_dims: Literal[0] = 0, validate_indices: bool = False
) -> Tensor:
    """Return the slices of x at `indices` along axis, whose place the axes of `indices` take.

    Negative indices count from the end; one beyond either end is an error, validated or not.
    """
    axis %= x.ndim
    flat = indices.flatten().long()
    length = x.shape[axis]
    slices = x.index_select(axis, torch.where(flat < 0, flat + length, flat))
    return slices.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


def tile(x: Tensor, *, reps: list[Positive]) -> Tensor:
    """Repeat x so many times along each axis."""
    return x.repeat(reps)


# --- compressed constants, unpacked once -----------------------------------------------------------------------------


def constexpr_affine_dequantize(quantized_data: Tensor, zero_point: Tensor, scale: Tensor, *, axis: int) -> Tensor:
    """Return scale * (quantized_data - zero_point) (iOS 16); scale and zero_point: one, or one by place of axis."""
    shape = [1] * quantized_data.ndim
    shape[axis] = -1
    scale, zero_point = (values.float().reshape(shape if values.ndim else ()) for values in (scale, zero_point))
    return scale * (quantized_data.float() - zero_point)


def constexpr_blockwise_shift_scale(data: Tensor, scale: Tensor, offset: Tensor | None = None) -> Tensor:
    """Return scale * (data - offset) (iOS 18); scale and offset hold one for each block of data, by axis."""
    values = data.float()
    if offset is not None:
        values = values - _blocks(offset.float(), data.shape)
    return _blocks(scale.float(), data.shape) * values


def _blocks(values: Tensor, shape: Sequence[int]) -> Tensor:
    """Repeat each value over its block of a tensor of `shape`."""
    for axis, (count, length) in enumerate(zip(values.shape, shape, strict=True)):
        if length % count:
            raise ValueError(f"{length} elements of axis {axis} do not divide into {count} blocks")
        if 1 < count < length:
            values = values.repeat_interleave(length // count, axis)
    return values


# --- the table -------------------------------------------------------------------------------------------------------

#: Computed in fp32 from fp16 operands, and rounded to the type declared of the result.
COMPUTED: dict[str, Callable[..., Any]] = {
    "add": _binary(torch.add),
    "avg_pool": avg_pool,
    "batch_norm": batch_norm,
    "constexpr_affine_dequantize": constexpr_affine_dequantize,
    "constexpr_blockwise_shift_scale": constexpr_blockwise_shift_scale,
    "conv": conv,
    "exp": _unary(torch.exp),
    "gelu": gelu,
    "leaky_relu": leaky_relu,
    "linear": linear,
    "matmul": matmul,
    "mul": _binary(torch.mul),
    "pow": _binary(torch.pow),
    "real_div": _binary(torch.div),
    "reduce_mean": _reduction(torch.mean),
    "reduce_sum": _reduction(torch.sum),
    "rsqrt": rsqrt,
    "sigmoid": _unary(torch.sigmoid),
    "sigmoid_hard": sigmoid_hard,
    "silu": _unary(F.silu),
    "softmax": softmax,
    "sqrt": _unary(torch.sqrt),
    "sub": _binary(torch.sub),
    "tanh": _unary(torch.tanh),
}

#: Computed in the type of the operands, without rounding.
EXACT: dict[str, Callable[..., Any]] = {
    "abs": _unary(torch.abs),
    "cast": cast,
    "clip": clip,
    "concat": concat,
    "expand_dims": expand_dims,
    "gather": gather,
    "identity": _unary(lambda x: x),
    "max_pool": max_pool,
    "maximum": _binary(torch.maximum),
    "minimum": _binary(torch.minimum),
    "pad": pad,
    "reduce_max": _reduction(torch.amax),
    "reduce_min": _reduction(torch.amin),
    "relu": _unary(F.relu),
    "relu6": _unary(F.relu6),
    "reshape": reshape,
    "slice_by_index": slice_by_index,
    "slice_by_size": slice_by_size,
    "split": split,
    "squeeze": squeeze,
    "stack": stack,
    "thresholded_relu": thresholded_relu,
    "tile": tile,
    "transpose": transpose,
}
