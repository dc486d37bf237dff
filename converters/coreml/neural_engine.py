"""Find which systems a Core ML package needs, and what keeps it from the Neural Engine.

Nothing here was run on a phone. Sources: Apple's guide to coremltools on typed execution [1] and on stateful models
[2], Apple's article on layouts for the Neural Engine [3], and an open report on the sides of states [4].
"""

from __future__ import annotations

from collections import Counter
from math import prod
from typing import Any

from coremltools.proto import MIL_pb2

TYPED = "apple.github.io/coremltools/docs-guides/source/typed-execution.html"  # [1]
STATES = "apple.github.io/coremltools/docs-guides/source/stateful-models.html"  # [2]
LAYOUT = "machinelearning.apple.com/research/neural-engine-transformers"  # [3]
SIDES = "github.com/apple/coremltools/issues/2631"  # [4]

#: By version of the specification (coremltools: `_SPECIFICATION_VERSION_IOS_15` and so on).
SYSTEMS = {6: "iOS 15, macOS 12", 7: "iOS 16, macOS 13", 8: "iOS 17, macOS 14", 9: "iOS 18, macOS 15"}
#: Axes that Apple advises, and bytes that the last of them is padded to [3].
_RANK, _ALIGNMENT = 4, 64
#: Sides that states must be a multiple of [4].
_STATE_SIDE = 32
_FLOAT32, _FLOAT16 = MIL_pb2.DataType.FLOAT32, MIL_pb2.DataType.FLOAT16


def system(spec: Any) -> str:
    """Return the oldest systems that the package runs on."""
    return SYSTEMS.get(spec.specificationVersion, f"specification {spec.specificationVersion}")


def weights(operations: Any) -> int:
    """Return how many numbers a program's weights are, in however few bits they lie."""
    stored = [op for op in operations if op.type.startswith("constexpr_") or (op.type == "const" and _in_blob(op))]
    inner = {binding.name for op in stored for argument in op.inputs.values() for binding in argument.arguments}
    return sum(prod(_shape(output)) for op in stored for output in op.outputs if output.name not in inner)


def advice(spec: Any, operations: Any) -> list[str]:
    """Return what speaks against the Neural Engine, a sentence each with its source; empty where nothing is known."""
    computed = [op for op in operations if op.type not in ("const", "cast") and not op.type.startswith("constexpr_")]
    outputs = [(op, output) for op in computed for output in op.outputs]
    found = []
    if single := sum(_dtype(output) == _FLOAT32 for _, output in outputs):
        found.append(
            f"{single} of {len(outputs)} results are float32, which the Neural Engine does not compute in: they run "
            f"on CPU or GPU; take fp16 ({TYPED})"
        )
    if many := Counter(op.type for op, output in outputs if len(_shape(output)) > _RANK):
        named = ", ".join(f"{count} {kind}" for kind, count in many.most_common())
        found.append(f"results of more than {_RANK} axes ({named}) may run on the CPU; Apple advises 4 ({LAYOUT})")
    tensors = [item for item in (*spec.description.input, *spec.description.output) if _array(item)]
    narrow = {shape[-1] for shape in map(_array, tensors) if len(shape) == _RANK and 2 * shape[-1] < _ALIGNMENT}
    if narrow and not single:
        share = sum(prod(_array(item)) for item in tensors) * 2
        padded = sum(prod(shape[:-1]) * -(-2 * shape[-1] // _ALIGNMENT) * _ALIGNMENT for shape in map(_array, tensors))
        widths = ", ".join(map(str, sorted(narrow)))
        found.append(
            f"rows of its tensors ({widths} wide) are padded to {_ALIGNMENT} bytes on the Neural Engine: "
            f"{padded / 1e3:.0f} kB for {share / 1e3:.0f} ({LAYOUT})"
        )
    if states := [list(item.type.stateType.arrayType.shape) for item in spec.description.state]:
        found.append(f"it keeps {len(states)} states itself, in half precision, one stream an MLState ({STATES})")
        if odd := sorted({side for shape in states for side in shape[2:] if side % _STATE_SIDE}):
            found.append(
                f"its states' sides ({', '.join(map(str, odd))}) are no multiples of {_STATE_SIDE}, with which the "
                f"Neural Engine was seen to fail: run it on CPU and GPU ({SIDES})"
            )
    return found


def _in_blob(operation: Any) -> bool:
    return any(value.WhichOneof("value") == "blobFileValue" for value in operation.attributes.values())


def _dtype(output: Any) -> int:
    return int(output.type.tensorType.dataType)


def _shape(output: Any) -> list[int]:
    return [int(dimension.constant.size) for dimension in output.type.tensorType.dimensions]


def _array(item: Any) -> list[int]:
    return [int(n) for n in item.type.multiArrayType.shape]
