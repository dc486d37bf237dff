"""Whole models as Core ML packages, run by our interpreter: against torch, and damaged on purpose."""

from __future__ import annotations

import itertools
import re
import shutil
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

pytest.importorskip("coremltools")
pytestmark = pytest.mark.filterwarnings("ignore")

with redirect_stderr(StringIO()):
    from coremltools.proto import Model_pb2
    from tsmzoo.converters.coreml.interpreter import ProgramRunner

    import tsmzoo
    from tsmzoo import registry
    from tsmzoo.artifact import store
    from tsmzoo.artifact.contract import Contract, Verification
    from tsmzoo.errors import ArtifactError
    from tsmzoo.exporting import export
    from tsmzoo.exporting.compare import compare
    from tsmzoo.exporting.plan import plan_export
    from tsmzoo.inference.model import Model
    from tsmzoo.inference.torch_runner import torch_model
    from tsmzoo.registry import Entry, recipes
    from tsmzoo.weights.load import Network, load_network

ZOO = registry.load()
TARGET = recipes.target("coreml")
ONLINE = "tsm_mbv2_motion_online"
slow = pytest.mark.slow


@dataclass(frozen=True)
class Made:
    path: Path
    network: Network
    contract: Contract


def make(folder: Path, entry: Entry, weights: str | None, **options: Any) -> Made:
    """Export as `tsmzoo export` does; it verifies the package."""
    network = load_network(entry, weights)
    out = folder / "m.mlpackage"
    return Made(out, network, export.write_artifact(ZOO, network, plan_export(entry, TARGET, out=out, **options)))


def compared(made: Made, path: Path, steps: int = 16) -> Verification:
    tolerance = TARGET.tolerance[made.contract.precision]
    reference, candidate = torch_model(ZOO, made.network), Model(ProgramRunner(path), made.contract)
    return compare(reference, candidate, tolerance=tolerance, steps=steps)


def passed(contract: Contract) -> None:
    report = contract.verification
    assert report is not None
    assert report.status == "passed"
    assert report.runtime.startswith("tsmzoo's ML Program interpreter, torch 2")
    assert report.steps >= (32 if contract.mode == "online" else 3)
    assert report.max_rel_error is not None
    assert report.max_rel_error <= report.tolerance
    assert (
        report.tolerance
        <= {"fp32": 1e-4, "fp16": 2e-2 if contract.weights == "random" else 1e-2, "w8": 0.2}[contract.precision]
    )
    if contract.precision == "fp16" and contract.weights != "random":
        assert report.top1_agreement == 1


# --- against torch ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def online(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """In fp32, whose tolerance is the narrow one."""
    return make(tmp_path_factory.mktemp("online"), ZOO.find(ONLINE), None, precision="fp32")


def test_a_bundled_stream_passes_and_verifies_again(online: Made) -> None:
    passed(online.contract)
    again = tsmzoo.verify(online.path).verification
    assert again.status == "passed"
    assert again.max_rel_error == online.contract.verification.max_rel_error


@slow
@pytest.mark.parametrize("model", ["tsm_mbv2_motion", "tsn_mbv2_motion"])
def test_bundled_clips_pass(model: str, tmp_path: Path) -> None:
    passed(make(tmp_path, ZOO.find(model), None).contract)


def architectures() -> dict[str, Entry]:
    """Return an entry of each architecture, as small as it goes."""
    found: dict[tuple[Any, ...], Entry] = {}
    for entry in ZOO.models:
        order = ZOO.normalisations[entry.normalisation].order
        shift = entry.shift_place, bool(entry.shift_frames)
        key = (entry.family, entry.mode, entry.backbone, entry.width, entry.modality, shift, entry.non_local, order)
        found.setdefault((*key, entry.non_local_bias), entry)
    frames = {"i3d": 8}
    return {
        entry.id: msgspec.structs.replace(
            entry, size=64, frames=entry.shift_frames or (1 if entry.mode == "online" else frames.get(entry.family, 4))
        )
        for entry in found.values()
    }


ARCHITECTURES = architectures()


def sample() -> list[tuple[str, str]]:
    """Return an architecture of each backbone, and a precision, the next for each: all of all take an hour."""

    def kind(backbone: str) -> str:  # sizes of X3D and of MoViNet are of the same operations
        return re.sub("^(x3d|movinet).*?(_stream|_base|)$", r"\1\2", backbone)

    first = {(kind(entry.backbone), entry.mode): name for name, entry in reversed(ARCHITECTURES.items())}
    return list(zip(first.values(), itertools.cycle(("fp32", "fp16", "w8")), strict=False))


@slow
@pytest.mark.parametrize(("model", "precision"), sample()[::2])
def test_every_architecture_passes(model: str, precision: str, tmp_path: Path) -> None:
    passed(make(tmp_path, ARCHITECTURES[model], "random", precision=precision).contract)


@slow
@pytest.mark.parametrize(
    ("state", "precision"),
    [
        ("explicit", "w8"),
        *(("packed", precision) for precision in ("fp32", "fp16", "w8")),
        *(("implicit", precision) for precision in ("fp16", "w8")),
    ],
)
def test_every_form_of_state_passes(state: Any, precision: str, tmp_path: Path) -> None:
    made = make(tmp_path, ZOO.find(ONLINE), None, state=state, precision=precision)
    passed(made.contract)
    assert made.contract.state == state


@slow
@pytest.mark.parametrize("model", [ONLINE, "tsm_mbv2_motion"])
@pytest.mark.parametrize("options", [{"preprocess": "external"}, {"softmax": True}], ids=str)
def test_other_ways_in_and_out_pass(model: str, options: dict[str, Any], tmp_path: Path) -> None:
    passed(make(tmp_path, ZOO.find(model), None, **options).contract)


# --- damaged on purpose: each must be seen ---------------------------------------------------------------------------


class Package:
    """A package to be changed: its specification, and its weights."""

    def __init__(self, path: Path) -> None:
        self._model, self._weights = path / "Data/com.apple.CoreML/model.mlmodel", path / "Data/com.apple.CoreML"
        self.spec: Any = Model_pb2.Model()
        self.spec.ParseFromString(self._model.read_bytes())
        (self.function,) = self.spec.mlProgram.functions.values()
        self.block = self.function.block_specializations[self.function.opset]
        self._weights = self._weights / "weights/weight.bin"
        self.weights = bytearray(self._weights.read_bytes())

    def save(self) -> None:
        self._model.write_bytes(self.spec.SerializeToString())
        self._weights.write_bytes(self.weights)

    def all(self, kind: str) -> list[Any]:
        return [item for item in self.block.operations if item.type == kind]

    def constant(self, item: Any, parameter: str) -> Any:
        """Return the operation that gives a parameter's constant; it may serve others, too."""
        name = item.inputs[parameter].arguments[0].name
        return next(each for each in self.all("const") if each.outputs[0].name == name)

    def own(self, item: Any, parameter: str) -> Any:
        """Return the value of a parameter's constant, copied so that it serves this operation alone."""
        source = self.constant(item, parameter)
        operations = list(self.block.operations)
        copy = type(source)()
        copy.CopyFrom(source)
        copy.outputs[0].name = f"{item.outputs[0].name}_{parameter}_own"
        item.inputs[parameter].arguments[0].name = copy.outputs[0].name
        operations.insert(0, copy)
        del self.block.operations[:]
        self.block.operations.extend(operations)
        return self.block.operations[0].attributes["val"]

    def find(self, kind: str, index: int) -> Any:
        """Return the operation again, after `own` has made new ones of all."""
        return self.all(kind)[index]

    def blob(self, item: Any, parameter: str, dtype: str = "float32") -> np.ndarray[Any, Any]:
        """Return a weight as a view into the file: what is written to it is written there."""
        value = self.constant(item, parameter).attributes["val"]
        place = value.blobFileValue.offset
        size, begin = np.frombuffer(self.weights, "<u8", 2, place + 8)
        shape = [axis.constant.size for axis in value.type.tensorType.dimensions]
        return np.frombuffer(self.weights, dtype, int(size) // np.dtype(dtype).itemsize, int(begin)).reshape(shape)


def ints(value: Any) -> Any:
    return value.immediateValue.tensor.ints.values


def convs(package: Package, *, depthwise: bool) -> list[Any]:
    return [
        item
        for item in package.all("conv")
        if (ints(package.constant(item, "groups").attributes["val"])[0] > 1) == depthwise
    ]


def bypass(package: Package, item: Any) -> None:
    """Take an operation out: what read its result reads its input."""
    old, new = item.outputs[0].name, item.inputs["x"].arguments[0].name
    for each in package.block.operations:
        for argument in each.inputs.values():
            for binding in argument.arguments:
                if binding.name == old:
                    binding.name = new
    package.block.operations.remove(item)


def exchange(first: Any, second: Any) -> None:
    """Exchange two messages' contents."""
    kept = type(first)()
    kept.CopyFrom(first)
    first.CopyFrom(second)
    second.CopyFrom(kept)


# Each takes where to change, a number from 0 on, and changes the package there; without such a place: IndexError.


def flip_weight_sign(package: Package, index: int) -> None:
    weight = package.blob(package.all("conv")[7 * index], "weight")
    flat = weight.reshape(-1)
    flat[np.abs(flat).argmax()] *= -1


def flip_weight_exponent(package: Package, index: int) -> None:
    weight = package.blob(package.all("conv")[7 * index + 2], "weight")
    flat = weight.reshape(-1).view("uint8")
    flat[3] ^= 0x02


def turn_kernel(package: Package, index: int) -> None:
    weight = package.blob(convs(package, depthwise=True)[4 * index], "weight")
    weight[:] = weight.swapaxes(2, 3).copy()


def mirror_kernel(package: Package, index: int) -> None:
    weight = package.blob(convs(package, depthwise=True)[4 * index + 1], "weight")
    weight[:] = weight[:, :, ::-1, ::-1].copy()


def reverse_channels(package: Package, index: int) -> None:
    weight = package.blob(convs(package, depthwise=False)[6 * index + 1], "weight")
    weight[:] = weight[:, ::-1].copy()


def drop_bias(package: Package, index: int) -> None:
    del package.all("conv")[9 * index + 3].inputs["bias"]


def move_pad(package: Package, index: int) -> None:
    item = convs(package, depthwise=True)[3 * index]
    place = package.all("conv").index(item)
    values = ints(package.own(item, "pad"))
    values[0], values[1] = values[0] + 1, values[1] - 1
    assert package.find("conv", place)


def less_pad(package: Package, index: int) -> None:
    values = ints(package.own(convs(package, depthwise=True)[5 * index], "pad"))
    values[3] = 0


def other_stride(package: Package, index: int) -> None:
    values = ints(package.own(convs(package, depthwise=True)[3 * index], "strides"))
    values[0] = 3 - values[0]


def dilate(package: Package, index: int) -> None:
    ints(package.own(convs(package, depthwise=True)[3 * index], "dilations"))[0] = 2


def dilate_and_pad(package: Package, index: int) -> None:
    item = convs(package, depthwise=True)[3 * index + 1]
    place = package.all("conv").index(item)
    ints(package.own(item, "dilations"))[:] = [2, 2]
    ints(package.own(package.find("conv", place), "pad"))[:] = [2, 2, 2, 2]


def drop_relu(package: Package, index: int) -> None:
    bypass(package, package.all("clip")[8 * index])


def lower_bound(package: Package, index: int) -> None:
    value = package.own(package.all("clip")[8 * index + 1], "beta")
    value.immediateValue.tensor.floats.values[0] = 1


def relu_for_bounds(package: Package, index: int) -> None:
    item = package.all("clip")[[1, 3, 0][index]]
    del item.inputs["alpha"], item.inputs["beta"]
    item.type = "relu"


def shift_slice(package: Package, index: int) -> None:
    item = package.all("slice_by_index")[5 * index]
    place = package.all("slice_by_index").index(item)
    first = ints(package.own(item, "begin"))
    first[1] += 1
    item = package.find("slice_by_index", place)
    if "end_mask" in item.inputs:
        mask = package.constant(item, "end_mask").attributes["val"].immediateValue.tensor.bools.values
        if not mask[1]:
            ints(package.own(item, "end"))[1] += 1


def longer_slice(package: Package, index: int) -> None:
    ints(package.own(package.all("slice_by_index")[5 * index], "end"))[1] += 1


def swap_concat(package: Package, index: int) -> None:
    exchange(*package.all("concat")[3 * index].inputs["values"].arguments)


def other_axis(package: Package, index: int) -> None:
    ints(package.own(package.all("concat")[3 * index], "axis"))[0] = 2


def repeat_operand(package: Package, index: int) -> None:
    item = package.all("add")[4 * index]
    item.inputs["y"].CopyFrom(item.inputs["x"])


def subtract(package: Package, index: int) -> None:
    package.all("add")[4 * index + 1].type = "sub"


def sum_for_mean(package: Package, index: int) -> None:
    package.all("reduce_mean")[index].type = "reduce_sum"


def maximum_for_mean(package: Package, index: int) -> None:
    package.all("reduce_mean")[index].type = "reduce_max"


def transposed_classifier(package: Package, index: int) -> None:
    weight = package.blob(package.all("linear")[index], "weight")
    weight.reshape(-1)[:] = weight.T.copy().reshape(-1)


def rotated_classes(package: Package, index: int) -> None:
    weight = package.blob(package.all("linear")[index], "weight")
    weight[:] = np.roll(weight, 1, 0)


def swap_states_in(package: Package, index: int) -> None:
    """Two states of one shape, each read in the other's place."""
    names = ("state_1", "state_2") if index == 0 else ("state_4", "state_5")
    assert index < 2 or package.all("none")[index]
    for item in package.block.operations:
        for argument in item.inputs.values():
            for binding in argument.arguments:
                if binding.name in names:
                    binding.name = names[1 - names.index(binding.name)]


def swap_states_out(package: Package, index: int) -> None:
    names = ("next_state_1", "next_state_2") if index == 0 else ("next_state_8", "next_state_9")
    assert index < 2 or package.all("none")[index]
    for item in package.block.operations:
        for output in item.outputs:
            if output.name in names:
                output.name = names[1 - names.index(output.name)]


def stale_state(package: Package, index: int) -> None:
    """The next state is the one that came in: a dropped update."""
    name = f"next_state_{[0, 3, 9][index]}"
    item = next(item for item in package.block.operations if item.outputs[0].name == name)
    item.type = "identity"
    for parameter in list(item.inputs):
        del item.inputs[parameter]
    item.inputs["x"].arguments.add().name = name.removeprefix("next_")


def frozen_pixels(package: Package, index: int) -> None:
    """A colour more or less: the normalisation of one channel."""
    item = next(item for item in package.block.operations if item.type in ("batch_norm", "mul") and "x" in item.inputs)
    value = package.own(item, "gamma" if item.type == "batch_norm" else "y")
    value.immediateValue.tensor.floats.values[index] *= 1.05


def blue_for_red(package: Package, index: int) -> None:
    package.spec.description.input[[0][index]].type.imageType.colorSpace = 30


MUTATIONS = [
    *(blue_for_red, dilate, dilate_and_pad, drop_bias, drop_relu, flip_weight_exponent, flip_weight_sign),
    *(frozen_pixels, less_pad, longer_slice, lower_bound, maximum_for_mean, mirror_kernel, move_pad, other_axis),
    *(other_stride, relu_for_bounds, repeat_operand, reverse_channels, rotated_classes, shift_slice, stale_state),
    *(subtract, sum_for_mean, swap_concat, swap_states_in, swap_states_out, transposed_classifier, turn_kernel),
]

#: Those that change nothing that the network gives for these inputs, and why.
EQUIVALENT = {
    (
        "flip_weight_sign",
        0,
    ): "the next convolution's result in this channel is below zero everywhere, and clipped to it",
    ("longer_slice", 1): "end_mask is set: the slice runs to the end whatever stands there",
    ("relu_for_bounds", 2): "nothing reaches the upper bound here: 4.9 of 6 at most",
}


def places(online: Made, mutation: Callable[[Package, int], None]) -> list[int]:
    """Return the places that a mutation has in the package."""
    found = []
    for index in range(3):
        try:
            mutation(Package(online.path), index)
        except IndexError:
            break
        found.append(index)
    return found


def verdicts_of(
    online: Made, mutation: Callable[[Package, int], None], indices: Sequence[int], folder: Path
) -> dict[int, str]:
    """Return what is found wrong with the package after each change; nothing where it passes."""
    found = {}
    for index in indices:
        path = folder / f"{mutation.__name__}-{index}.mlpackage"
        shutil.copytree(online.path, path)
        package = Package(path)
        mutation(package, index)
        package.save()
        assert store.digest(path) != store.digest(online.path)
        try:
            report = compared(online, path)
            found[index] = report.reason or ""
        except ArtifactError as error:
            found[index] = str(error)
        shutil.rmtree(path)
    return found


@pytest.mark.parametrize("mutation", [turn_kernel, move_pad, drop_relu, shift_slice, swap_states_in, stale_state])
def test_a_change_of_the_file_is_seen(mutation: Callable[[Package, int], None], online: Made, tmp_path: Path) -> None:
    """One of each kind: a weight, an attribute, an operation, the shift, a state, its update."""
    (reason,) = verdicts_of(online, mutation, [0], tmp_path).values()
    assert reason


@slow
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_every_change_of_the_file_is_seen(
    mutation: Callable[[Package, int], None], online: Made, tmp_path_factory: pytest.TempPathFactory
) -> None:
    verdicts = verdicts_of(online, mutation, places(online, mutation), tmp_path_factory.mktemp("changed"))
    assert verdicts, "the package has no such place"
    unseen = [index for index, reason in verdicts.items() if not reason]
    assert unseen == [index for index in verdicts if (mutation.__name__, index) in EQUIVALENT], verdicts
    print(f"{mutation.__name__}: {len(verdicts) - len(unseen)} of {len(verdicts)} seen")


def test_the_changes_are_as_many_as_the_documentation_says(online: Made) -> None:
    count = sum(len(places(online, mutation)) for mutation in MUTATIONS)
    page = (Path(__file__).resolve().parents[2] / "docs" / "measurements.md").read_text(encoding="utf-8")
    assert f"{count - len(EQUIVALENT)} of {count} changes" in page


def test_the_unchanged_file_is_not_refused(online: Made, tmp_path: Path) -> None:
    """The mutations' way through the file leaves it as it was."""
    shutil.copytree(online.path, tmp_path / "m.mlpackage")
    Package(tmp_path / "m.mlpackage").save()
    assert compared(online, tmp_path / "m.mlpackage").status == "passed"
