"""I3D networks, and their form without volumes: against torch's own 3-D operations, over shapes that tests draw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from tsmzoo.errors import ZooError
from tsmzoo.exporting.graph.conv3d_to_2d import StackedConv, SummedConv, conv3d_to_2d
from tsmzoo.exporting.graph.fold_batchnorm import fold_batch_norm
from tsmzoo.models.i3d import (
    VARIANTS,
    HeadPool,
    I3DResNet,
    InceptionI3D,
    NonLocalVolume,
    SameConv3d,
    SameMaxPool3d,
    pads,
)
from tsmzoo.models.shift import shift_clips
from tsmzoo.models.wrappers import ClipModel, SingleClip

if TYPE_CHECKING:
    from collections.abc import Callable

quick = settings(max_examples=60, deadline=None)
reaches = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))
strides = st.tuples(st.integers(1, 3), st.integers(1, 2), st.integers(1, 2))
sizes = st.tuples(st.integers(1, 9), st.integers(3, 7), st.integers(3, 7))


def flat(module: nn.Module, volume: Tensor, *, channels_last: bool = False) -> Tensor:
    """Return what the flat form of `module` gives for the one volume of `volume`, as a volume."""
    frames = conv3d_to_2d(nn.Sequential(module), channels_last=channels_last)(volume[0].transpose(0, 1))
    return frames.transpose(0, 1)[None]


def close(found: Tensor, wanted: Tensor) -> None:
    assert found.shape == wanted.shape
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def volume(seed: int, channels: int, *around: int) -> Tensor:
    return torch.randn(1, channels, *around, generator=torch.Generator().manual_seed(seed))


# --- modules -------------------------------------------------------------------------------------------------------


@quick
@given(reaches, strides, sizes, st.data(), st.booleans(), st.booleans())
def test_a_flat_convolution_is_the_convolution(
    kernel: tuple[int, int, int],
    stride: tuple[int, int, int],
    around: tuple[int, int, int],
    data: st.DataObject,
    stem: bool,
    channels_last: bool,
) -> None:
    padding = tuple(data.draw(st.integers(0, n // 2)) if n % 2 else 0 for n in kernel)
    if any(n + 2 * p < k for n, p, k in zip(around, padding, kernel, strict=True)):
        return
    conv = nn.Conv3d(2, 16 if stem else 3, kernel, stride, padding)
    form = conv3d_to_2d(nn.Sequential(conv), channels_last=channels_last)[0]
    assert isinstance(form, StackedConv if stem else SummedConv)
    x = volume(1, 2, *around)
    close(flat(conv, x, channels_last=channels_last), conv(x))


@quick
@given(st.integers(1, 7), st.integers(1, 3), sizes, st.booleans(), st.booleans())
def test_same_padding_is_tensorflows(kernel: int, stride: int, around: tuple[int, ...], stem: bool, last: bool) -> None:
    """TensorFlow: ceil(n / stride) places, the odd zero behind (tf.nn.convolution's documentation)."""
    conv = SameConv3d(1, 16 if stem else 2, kernel, stride)
    x = volume(2, 1, *around)
    places = [-(-n // stride) for n in around]
    total = [max((p - 1) * stride + kernel - n, 0) for p, n in zip(places, around, strict=True)]
    assert [front for front, _ in pads(conv, around)] == [t // 2 for t in total]  # type: ignore[arg-type]
    zeros = [z for t in reversed(total) for z in (t // 2, t - t // 2)]
    wanted = F.conv3d(F.pad(x, zeros), conv.weight, conv.bias, stride)
    assert list(wanted.shape[2:]) == places
    close(conv(x), wanted)
    close(flat(conv, x, channels_last=last), wanted)


@quick
@given(reaches, strides, sizes, st.data())
def test_a_flat_max_pool_is_the_max_pool(
    kernel: tuple[int, int, int], stride: tuple[int, int, int], around: tuple[int, int, int], data: st.DataObject
) -> None:
    padding = tuple(data.draw(st.integers(0, n // 2)) if n % 2 else 0 for n in kernel)
    if any(n + 2 * p < k for n, p, k in zip(around, padding, kernel, strict=True)):
        return
    pool = nn.MaxPool3d(kernel, stride, padding)
    x = volume(3, 2, *around)
    close(flat(pool, x), pool(x))


@quick
@given(st.integers(1, 3), st.integers(1, 2), sizes)
def test_a_flat_same_max_pool_is_the_max_pool(kernel: int, stride: int, around: tuple[int, int, int]) -> None:
    pool = SameMaxPool3d(kernel, stride)
    x = volume(4, 2, *around).relu()  # what the pools of Inception see
    close(flat(pool, x), pool(x))


@quick
@given(st.tuples(st.integers(1, 5), st.integers(1, 8), st.integers(1, 8)), sizes)
def test_the_heads_pool(window: tuple[int, int, int], around: tuple[int, int, int]) -> None:
    pool = HeadPool(window)
    x = volume(5, 2, *around)
    wanted = F.avg_pool3d(x, tuple(map(min, window, around)), 1)
    close(pool(x), wanted)
    close(flat(pool, x), wanted)


@pytest.mark.parametrize("mode", ["embedded_gaussian", "dot_product", "gaussian"])
def test_a_flat_non_local_block_sees_the_whole_clip(mode: Any) -> None:
    torch.manual_seed(0)
    block = NonLocalVolume(8, mode, out_bias=False).eval()
    x = volume(6, 8, 3, 6, 5)
    with torch.no_grad():
        wanted = block(x)
        close(flat(block, x), wanted)
        other = x.clone()
        other[:, :, 2] += 1
        assert not torch.allclose(block(other)[:, :, 0], wanted[:, :, 0]), "the first frame attends to the last"


@pytest.mark.parametrize("mode", ["embedded_gaussian", "dot_product", "gaussian"])
def test_attention_by_hand(mode: Any) -> None:
    """Wang et al., § 3.2, a position at a time, with (1, 2, 2) max pools on what is attended to."""
    torch.manual_seed(1)
    block = NonLocalVolume(4, mode, out_bias=False).eval()
    x = volume(7, 4, 2, 4, 4)

    def project(conv: nn.Conv2d, column: Tensor) -> Tensor:
        return conv.weight[:, :, 0, 0] @ column + conv.bias  # type: ignore[operator]

    def pooled(of: Callable[[Tensor], Tensor]) -> Tensor:
        """Return P', C of the maxima over 2 x 2 positions of a frame."""
        maps = torch.stack([torch.stack([of(x[0, :, t, i, j]) for i in range(4) for j in range(4)]) for t in range(2)])
        return maps.reshape(2, 2, 2, 2, 2, -1).amax((2, 4)).reshape(8, -1)

    with torch.no_grad():
        g = pooled(lambda column: project(block.g, column))
        phi = pooled(lambda column: column if mode == "gaussian" else project(block.phi, column))
        found = block(x)
        for t, i, j in ((0, 0, 0), (1, 3, 2)):
            column = x[0, :, t, i, j]
            theta = column if mode == "gaussian" else project(block.theta, column)
            scores = phi @ theta
            weights = scores / 8 if mode == "dot_product" else scores.softmax(0)
            out = block.out.weight[:, :, 0, 0] @ (weights @ g)
            scale = block.bn.weight / (block.bn.running_var + block.bn.eps).sqrt()  # type: ignore[operator]
            wanted = column + (out - block.bn.running_mean) * scale + block.bn.bias
            torch.testing.assert_close(found[0, :, t, i, j], wanted)


# --- whole networks ------------------------------------------------------------------------------------------------


def randomised(net: nn.Module) -> nn.Module:
    """Give every batch norm statistics of its own, so that one that is lost or doubled shows."""
    generator = torch.Generator().manual_seed(8)
    for module in net.modules():
        if isinstance(module, nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            for tensor in (module.weight, module.running_var):
                tensor.data.uniform_(0.5, 1.2, generator=generator)  # type: ignore[union-attr]
            for tensor in (module.bias, module.running_mean):
                tensor.data.normal_(0, 0.1, generator=generator)  # type: ignore[union-attr]
    return net.eval()


NETS: dict[str, Callable[[], nn.Module]] = {
    **{name: (lambda name=name: I3DResNet(name, 5)) for name in VARIANTS},  # type: ignore[misc]
    "non-local": lambda: I3DResNet("resnet50_i3d", 5, non_local="embedded_gaussian"),
    "inception": lambda: InceptionI3D(5),
    "inception flow": lambda: InceptionI3D(5, channels=2),
}


@pytest.mark.parametrize(
    ("name", "frames", "size", "channels_last"),
    [
        *(("resnet50_i3d_8x8", 8, 64, True), ("non-local", 9, 37, False), ("inception flow", 9, 37, True)),
        *(
            pytest.param(name, *clip, last, marks=pytest.mark.slow)
            for name in NETS
            for clip in ((8, 64), (9, 37))
            for last in (False, True)
        ),
    ],
)
def test_a_flat_network_is_the_network(name: str, frames: int, size: int, channels_last: bool) -> None:
    torch.manual_seed(0)
    net = randomised(NETS[name]())
    x = torch.randn(1, frames, 2 if "flow" in name else 3, size, size)
    form = SingleClip(conv3d_to_2d(fold_batch_norm(net), channels_last=channels_last), frames).eval()
    volumes = (nn.Conv3d, nn.MaxPool3d, nn.AvgPool3d, nn.BatchNorm3d)
    held = {
        id(module)
        for flat in form.modules()
        if hasattr(flat, "conv") or hasattr(flat, "pool")
        for module in flat.children()
    }
    assert not [m for m in form.modules() if isinstance(m, volumes) and id(m) not in held]
    with torch.inference_mode():
        wanted, found = ClipModel(net, frames)(x), form(x)
        assert wanted.shape == (1, 5)
        assert (found - wanted).abs().max() <= 1e-5 * (wanted.max() - wanted.min())
        assert not torch.allclose(ClipModel(net, frames)(x.flip(1)), wanted, rtol=1e-3), "the order of frames counts"


@pytest.mark.parametrize("name", ["resnet50_i3d_8x8", "inception"])
def test_clips_of_a_batch_do_not_meet(name: str) -> None:
    torch.manual_seed(0)
    net = randomised(NETS[name]())
    x = torch.randn(3, 8, 3, 64, 64)
    with torch.inference_mode():
        together = ClipModel(net, 8)(x)
        for clip, row in zip(x, together, strict=True):
            torch.testing.assert_close(ClipModel(net, 8)(clip[None])[0], row, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in ("non-local", "inception") else pytest.mark.slow) for name in NETS]
)
def test_the_fewest_frames_are_those_that_a_network_can_take(name: str) -> None:
    net = NETS[name]().eval()
    fewest = {"resnet50_i3d": 5, "non-local": 5, "resnet50_i3d_3x3x3": 5, "resnet50_i3d_replace": 1}
    wanted = fewest.get(name, 1 if "inception" in name else 2)
    clip = torch.zeros(1, wanted, 2 if "flow" in name else 3, 32, 32)
    with torch.inference_mode():
        assert ClipModel(net, wanted)(clip).shape == (1, 5)
        flat_net = conv3d_to_2d(fold_batch_norm(net), channels_last=False)
        assert SingleClip(flat_net, wanted)(clip).shape == (1, 5)
        if wanted > 1:
            with pytest.raises(RuntimeError):
                net(clip[0, 1:], wanted - 1, shift_clips(1))
            for form, backbone in ((ClipModel, net), (SingleClip, net), (SingleClip, flat_net)):
                with pytest.raises(ZooError, match=f"needs clips of {wanted} frames at least, not of {wanted - 1};"):
                    form(backbone, wanted - 1)


@pytest.mark.slow
def test_no_tensor_of_a_flat_network_has_five_axes() -> None:
    torch.manual_seed(0)
    for name in ("non-local", "inception"):
        form = SingleClip(conv3d_to_2d(fold_batch_norm(NETS[name]().eval()), channels_last=True), 8)
        program = torch.export.export(form, (torch.zeros(8, 3, 32, 32),), strict=False)
        shapes = [node.meta["val"].shape for node in program.graph.nodes if isinstance(node.meta.get("val"), Tensor)]
        parameters = {tuple(tensor.shape) for tensor in form.state_dict().values()}
        assert max(len(shape) for shape in shapes if tuple(shape) not in parameters) == 4


def test_a_replaced_shift_is_a_tsm_whose_shift_is_learned() -> None:
    """TSM, § 5.4: a 3x1x1 kernel that takes a channel of the next or the last frame as it is *is* the shift."""
    from tsmzoo.models.resnet import ResNet

    torch.manual_seed(0)
    tsm = randomised(ResNet(50, 5, shift_div=8))
    i3d = I3DResNet("resnet50_i3d_replace", 5).eval()
    state = {}
    wanted = i3d.state_dict()
    for key, tensor in tsm.state_dict().items():
        if wanted[key].dim() != 5:
            state[key] = tensor
            continue
        kernel = torch.zeros_like(wanted[key])
        if wanted[key].shape[2] == 1:
            kernel[:, :, 0] = tensor
        else:
            fold = tensor.shape[1] // 8
            kernel[:, :fold, 2] = tensor[:, :fold]  # from the next frame
            kernel[:, fold : 2 * fold, 0] = tensor[:, fold : 2 * fold]
            kernel[:, 2 * fold :, 1] = tensor[:, 2 * fold :]
        state[key] = kernel
    i3d.load_state_dict(state)
    x = torch.randn(2 * 4, 3, 64, 64)
    with torch.inference_mode():
        shifted = tsm(x, 4, shift_clips(4)).reshape(2, 4, -1).mean(1)
        torch.testing.assert_close(i3d(x, 4, shift_clips(4)), shifted, rtol=1e-4, atol=1e-4)
