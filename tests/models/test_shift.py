"""The shift itself, its forms against each other, and where the networks place it."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tsmzoo import models, registry
from tsmzoo.exporting.graph.deploy import Deployed
from tsmzoo.exporting.graph.fold_batchnorm import fold_batch_norm
from tsmzoo.exporting.graph.split_channels import SplitBottleneck, split_channels
from tsmzoo.models.memory import FirstStep, StepMemory
from tsmzoo.models.mobilenet_v2 import InvertedResidual, MobileNetV2, scaled
from tsmzoo.models.resnet import Bottleneck, ResNet
from tsmzoo.models.shift import (
    Shift,
    shift_channels_last,
    shift_clip,
    shift_clips,
    shift_clips_forward,
)
from tsmzoo.models.wrappers import ClipModel, SingleClip, StreamStep, state_shapes

#: Channels of the shifted blocks' inputs, an eighth of which is shifted: checkpoint facts, § 8.2.
RESNET50_FOLDS = [8, 32, 32, 32, 64, 64, 64, 64, *[128] * 5, 128, 256, 256]
MOBILENET_FOLDS = {3: 3, 5: 4, 6: 4, 8: 8, 9: 8, 10: 8, 12: 12, 13: 12, 15: 20, 16: 20}


ZOO = registry.load()


def build(name: str, seed: int | None = None) -> nn.Module:
    return models.build(ZOO.find(name), seed=seed)


def random_clip(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def by_definition(x: Tensor, fold: int) -> Tensor:
    """TSM of one clip, T, C, H, W, frame by frame and channel by channel."""
    out = x.clone()
    frames = len(x)
    for t in range(frames):
        for c in range(fold):
            out[t, c] = x[t + 1, c] if t + 1 < frames else 0
        for c in range(fold, 2 * fold):
            out[t, c] = x[t - 1, c] if t > 0 else 0
    return out


def close(got: Tensor, wanted: Tensor, tolerance: float = 1e-5) -> bool:
    return bool((got - wanted).abs().max() <= tolerance * (wanted.max() - wanted.min()))


@st.composite
def clips(draw: st.DrawFn) -> tuple[Tensor, int, int, int]:
    """N·T, C, H, W of distinct values, N, T and a fold that leaves no channel twice."""
    n, t, c, h, w = (draw(st.integers(1, most)) for most in (3, 5, 9, 3, 3))
    fold = draw(st.integers(0, c // 2))
    return torch.arange(1.0, n * t * c * h * w + 1).view(n * t, c, h, w), n, t, fold


# --- the shift -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [shift_clip, shift_channels_last])
def test_check_vector(form: Shift) -> None:
    """x[t, c] = 10 t + c with T = 3, C = 8, fold 1: checkpoint facts, § 8.1."""
    x = (10 * torch.arange(3.0)[:, None] + torch.arange(8.0)).view(3, 8, 1, 1)
    out = form(x, 1).view(3, 8)
    assert out[:, 0].tolist() == [10, 20, 0]
    assert out[:, 1].tolist() == [0, 1, 11]
    assert out[:, 2].tolist() == [2, 12, 22]
    assert torch.equal(out[:, 3:], x.view(3, 8)[:, 3:])


@given(clips())
@settings(max_examples=60, deadline=None)
def test_all_forms_follow_the_definition(case: tuple[Tensor, int, int, int]) -> None:
    x, n, t, fold = case
    wanted = torch.cat([by_definition(clip, fold) for clip in x.split(t)])
    for form in (shift_clip, shift_channels_last):
        assert torch.equal(torch.cat([form(clip, fold) for clip in x.split(t)]), wanted)
    assert torch.equal(shift_clips(t)(x, fold), wanted)
    assert len(x) == n * t


@given(clips())
@settings(max_examples=60, deadline=None)
def test_shift_moves_values_and_invents_none(case: tuple[Tensor, int, int, int]) -> None:
    """Of each shifted channel one frame is zero (the values are distinct, none is zero), all else stays in place."""
    x, n, t, fold = case
    out = shift_clips(t)(x, fold)
    assert out.shape == x.shape
    assert int((out == 0).sum()) == n * 2 * fold * x[0, 0].numel()
    assert torch.equal(out[:, 2 * fold :], x[:, 2 * fold :])
    kept = out[out != 0]
    assert len(kept.unique()) == len(kept)
    assert torch.isin(kept, x).all()


@given(clips())
@settings(max_examples=60, deadline=None)
def test_forward_shift_is_the_online_shift_frame_by_frame(case: tuple[Tensor, int, int, int]) -> None:
    x, _, t, fold = case
    whole = shift_clips_forward(t)(x, fold)
    for clip, wanted in zip(x.split(t), whole.split(t), strict=True):
        state = torch.zeros_like(clip[:1, :fold])
        for frame, out in zip(clip.split(1), wanted.split(1), strict=True):
            online = StepMemory([state])
            assert torch.equal(online(frame, fold), out)
            (state,) = online.next_states
            assert torch.equal(state, frame[:, :fold])


def test_forward_shift_sees_no_future() -> None:
    x = random_clip(4, 8, 2, 2)
    changed = x.clone()
    changed[3] += 1
    assert torch.equal(shift_clips_forward(4)(x, 2)[:3], shift_clips_forward(4)(changed, 2)[:3])
    assert not torch.equal(shift_clip(x, 2)[:3], shift_clip(changed, 2)[:3])


def test_first_frame_of_a_stream_sees_zeros() -> None:
    x = random_clip(2, 8, 3, 4)
    first = FirstStep()
    assert torch.equal(first(x, 2), StepMemory([torch.zeros(2, 2, 3, 4)])(x, 2))
    assert [state.shape for state in first.states] == [(2, 2, 3, 4)]


def test_batch_of_no_whole_clips_is_refused() -> None:
    with pytest.raises(RuntimeError):
        shift_clips(4)(random_clip(6, 8, 2, 2), 1)


def test_shift_of_one_clip_stays_at_rank_four() -> None:
    seen: list[int] = []

    class Ranks(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = function(*args, **(kwargs or {}))
            seen.extend([out.dim()] if isinstance(out, Tensor) else [])
            return out

    with Ranks():
        shift_clip(random_clip(3, 8, 2, 2), 1)
    assert seen
    assert max(seen) == 4


# --- placement -----------------------------------------------------------------------------------------------------


def folds(net: nn.Module) -> dict[str, int]:
    """Return the fold of each shifted block by its name."""
    return {
        name: module.fold
        for name, module in net.named_modules()
        if isinstance(module, Bottleneck | InvertedResidual) and module.fold
    }


def test_resnet50_shifts_every_block() -> None:
    found = folds(build("tsm_r50_k400_8f"))
    assert list(found) == [f"layer{layer}.{b}" for layer, n in enumerate((3, 4, 6, 3), 1) for b in range(n)]
    assert list(found.values()) == RESNET50_FOLDS


def test_resnet101_shifts_every_second_block_of_every_layer() -> None:
    found = folds(build("tsm_r101_sthv2"))
    assert list(found) == [f"layer{layer}.{b}" for layer, n in enumerate((3, 4, 23, 3), 1) for b in range(0, n, 2)]
    assert len(found) == 18
    assert (found["layer1.0"], found["layer1.2"], found["layer3.0"], found["layer3.22"]) == (8, 32, 64, 128)


def test_mobilenet_shifts_expanded_blocks_with_a_shortcut() -> None:
    for name in ("tsm_mbv2_k400", "tsm_mbv2_online"):
        assert folds(build(name)) == {f"features.{i}": fold for i, fold in MOBILENET_FOLDS.items()}


@pytest.mark.parametrize("name", ["tsn_r50_k400", "tsn_r50_k400_8f"])
def test_tsn_shifts_nothing(name: str) -> None:
    assert not folds(build(name))


@pytest.mark.parametrize(("depth", "count"), [(50, 16), (101, 18)])
def test_every_shift_takes_an_eighth_of_its_input(depth: int, count: int) -> None:
    with torch.device("meta"):
        net = ResNet(depth, 4, shift_div=8)
    calls: list[tuple[int, int]] = []

    def spy(x: Tensor, fold: int) -> Tensor:
        calls.append((x.shape[1], fold))
        return x

    with torch.no_grad():
        net(torch.empty(2, 3, 64, 64, device="meta"), 2, spy)
    assert len(calls) == count
    assert all(width == 8 * fold for width, fold in calls)


def test_resnet_shortcut_keeps_the_present_frame() -> None:
    """A shift that zeroes its input leaves what the shortcut carries."""
    block = Bottleneck(16, 4, 1, 2, None).eval()
    x = random_clip(2, 16, 4, 4).relu()
    with torch.no_grad():
        alone = block(x, 2, lambda y, _: torch.zeros_like(y))
        branch = block.bn3(block.conv3(block.bn2(block.conv2(block.bn1(block.conv1(x * 0)).relu())).relu()))
    assert torch.equal(alone, (branch + x).relu())


def test_mobilenet_shortcut_keeps_the_present_frame() -> None:
    block = InvertedResidual(8, 8, 1, 6, 8).eval()
    x = random_clip(2, 8, 4, 4)
    with torch.no_grad():
        assert torch.equal(block(x, lambda y, _: y * 0), x + block.conv(x * 0))


def test_online_states_at_224_pixels() -> None:
    """Checkpoint facts, § 9; the registry tells them, so that `info` need not build the network."""
    wanted = [
        *[(1, 3, 56, 56), (1, 4, 28, 28), (1, 4, 28, 28), (1, 8, 14, 14), (1, 8, 14, 14), (1, 8, 14, 14)],
        *[(1, 12, 14, 14), (1, 12, 14, 14), (1, 20, 7, 7), (1, 20, 7, 7)],
    ]
    assert state_shapes(build("tsm_mbv2_online"), 3, 224) == wanted
    assert list(ZOO.find("tsm_mbv2_online").states) == wanted
    assert sum(int(np.prod(shape)) for shape in wanted) == 27_048


@pytest.mark.parametrize("size", [32, 100, 129, 256])
def test_states_at_other_sizes_round_up(size: int) -> None:
    strides = [4, 8, 8, 16, 16, 16, 16, 16, 32, 32]
    sides = [-(-size // stride) for stride in strides]
    wanted = [(1, fold, side, side) for fold, side in zip(MOBILENET_FOLDS.values(), sides, strict=True)]
    assert state_shapes(build("tsm_mbv2_online"), 3, size) == wanted


def test_state_shapes_leave_the_network_alone() -> None:
    net = build("tsm_mbv2_online", seed=0)
    state_shapes(net, 3, 64)
    assert all(parameter.device.type == "cpu" for parameter in net.parameters())


def test_shift_has_no_parameters() -> None:
    with torch.device("meta"):
        for build in (lambda **kw: ResNet(50, 9, **kw), lambda **kw: MobileNetV2(9, **kw)):
            shifted, plain = build(shift_div=8).state_dict(), build(shift_div=None).state_dict()
            assert {k: v.shape for k, v in shifted.items()} == {k: v.shape for k, v in plain.items()}


@pytest.mark.parametrize(("channels", "width", "wanted"), [(32, 1.0, 32), (24, 0.5, 16), (16, 0.35, 8), (96, 1.4, 136)])
def test_scaled_widths_are_multiples_of_eight(channels: int, width: float, wanted: int) -> None:
    assert scaled(channels, width) == wanted


#: Channels of the blocks' inputs at a multiplier of 0.35, an eighth of which is shifted.
NARROW_FOLDS = {3: 1, 5: 2, 6: 2, 8: 3, 9: 3, 10: 3, 12: 4, 13: 4, 15: 7, 16: 7}


def test_a_narrow_mobilenet_shifts_in_the_same_places() -> None:
    for name in ("tsm_mbv2_motion", "tsm_mbv2_motion_online"):
        assert folds(build(name)) == {f"features.{i}": fold for i, fold in NARROW_FOLDS.items()}
    assert not folds(build("tsn_mbv2_motion"))
    blocks = [build("tsm_mbv2_motion").get_submodule(f"features.{i}.conv") for i in range(1, 18)]
    widths = [next(m for m in reversed(list(block.modules())) if isinstance(m, nn.Conv2d)) for block in blocks]
    assert [conv.out_channels for conv in widths] == [
        *(8, 8, 8, 16, 16, 16, 24, 24, 24, 24, 32, 32, 32, 56, 56, 56, 112)
    ]


# --- whole networks ------------------------------------------------------------------------------------------------

TINY = {"mobilenet_v2": 64, "resnet50": 64}


@pytest.fixture(scope="module", params=list(TINY))
def net(request: pytest.FixtureRequest) -> nn.Module:
    """A network with a shift and weights from a seed; its batch norms are not the identity."""
    name = {"mobilenet_v2": "tsm_mbv2_online", "resnet50": "tsm_r50_sthv2"}[request.param]
    return lively(build(name, seed=3))


def lively(net: nn.Module) -> nn.Module:
    """Return `net`, its batch norms as if videos had gone through."""
    generator = torch.Generator().manual_seed(4)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return net


@torch.no_grad()
def test_stream_of_a_network_is_its_forward_shift(net: nn.Module) -> None:
    clip = random_clip(7, 3, 64, 64)
    whole = net(clip, 7, shift_clips_forward(7))
    step, states = StreamStep(net), [torch.zeros(shape) for shape in state_shapes(net, 3, 64)]
    for frame, wanted in zip(clip.split(1), whole.split(1), strict=True):
        logits, *states = step(frame, *states)
        assert close(logits, wanted)
    assert not close(net(clip, 7, shift_clips(7)), whole, 1e-3), "the two shifts must differ"


@pytest.fixture(scope="module")
def narrow() -> nn.Module:
    """The smallest network that shifts, its batch norms not the identity."""
    return lively(models.build(msgspec.structs.replace(ZOO.find("tsm_mbv2_motion_online"), width=0.25), seed=6))


@given(st.integers(1, 2), st.integers(1, 5), st.sampled_from([(32, 32), (32, 40), (33, 32)]), st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
@torch.no_grad()
def test_an_online_clip_is_the_mean_over_the_steps(
    narrow: nn.Module, n: int, t: int, side: tuple[int, int], seed: int
) -> None:
    """What an online model is trained and measured as, and what it does on a phone, are one."""
    clips_ = random_clip(n, t, 3, *side, seed=seed)
    whole = ClipModel(narrow, t, online=True)(clips_)
    step, first = StreamStep(narrow), FirstStep()
    narrow(clips_[:, 0], 1, first)
    states = [torch.zeros(state.shape) for state in first.states]
    answers = []
    for frame in clips_.unbind(1):
        logits, *states = step(frame, *states)
        answers.append(logits)
    assert whole.shape == (n, 14)
    assert close(whole, torch.stack(answers).mean(0))
    if t == 1:  # a frame alone: both shifts bring in zeros, but the one that looks back keeps the other eighth
        assert not close(whole, ClipModel(narrow, t)(clips_), 1e-4)
        assert close(whole, answers[0])


@torch.no_grad()
def test_an_online_clip_sees_no_future_and_a_shifted_one_does(narrow: nn.Module) -> None:
    clip = random_clip(1, 5, 3, 32, 32)
    longer = torch.cat([clip, random_clip(1, 1, 3, 32, 32, seed=1)], 1)
    for online in (True, False):
        before = 5 * ClipModel(narrow, 5, online=online)(clip)
        after = narrow(longer[0], 6, (shift_clips_forward if online else shift_clips)(6))[:5].sum(0)
        assert close(before[0], after, 1e-4) == online


@torch.no_grad()
def test_streams_side_by_side_do_not_mix(net: nn.Module) -> None:
    clips_ = random_clip(2, 3, 3, 64, 64)
    step = StreamStep(net)
    shapes = state_shapes(net, 3, 64)
    both = [torch.zeros(2, *shape[1:]) for shape in shapes]
    alone = [[torch.zeros(shape) for shape in shapes] for _ in range(2)]
    for t in range(3):
        logits, *both = step(clips_[:, t], *both)
        for n in range(2):
            wanted, *alone[n] = step(clips_[n : n + 1, t], *alone[n])
            assert close(logits[n : n + 1], wanted)


@torch.no_grad()
def test_step_is_pure(net: nn.Module) -> None:
    step, frame = StreamStep(net), random_clip(1, 3, 64, 64)
    states = [random_clip(*shape) for shape in state_shapes(net, 3, 64)]
    before = [state.clone() for state in states]
    first, second = step(frame, *states), step(frame, *states)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(states, before, strict=True))
    assert not close(step(frame, *(state * 0 for state in states))[0], first[0], 1e-3), "the states must count"


@torch.no_grad()
def test_batch_of_clips_is_clip_by_clip(net: nn.Module) -> None:
    batch = random_clip(2, 4, 3, 64, 64)
    together = ClipModel(net, 4)(batch)
    one = SingleClip(net, 4)
    for clip, wanted in zip(batch, together, strict=True):
        assert close(one(clip)[0], wanted)
        assert close(one(clip[None])[0], wanted)
    assert close(ClipModel(net, 4)(batch[1:])[0], together[1])


@torch.no_grad()
def test_order_of_frames_matters_to_tsm(net: nn.Module) -> None:
    clip = random_clip(1, 4, 3, 64, 64)
    assert not close(ClipModel(net, 4)(clip[:, [2, 0, 3, 1]]), ClipModel(net, 4)(clip), 1e-3)


@torch.no_grad()
def test_tsn_is_the_mean_over_frames() -> None:
    clip, tsn = random_clip(4, 3, 64, 64), build("tsn_r50_k400", seed=3)
    wanted = torch.stack([tsn(frame[None], 1, shift_clip)[0] for frame in clip]).mean(0)
    for frames in (clip, clip[[2, 0, 3, 1]]):
        assert close(SingleClip(tsn, 4)(frames)[0], wanted)


@torch.no_grad()
def test_folded_batch_norm_computes_the_same(net: nn.Module) -> None:
    clip = random_clip(1, 4, 3, 64, 64)
    folded = fold_batch_norm(net)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in net.modules())
    assert close(ClipModel(folded, 4)(clip), ClipModel(net, 4)(clip), 1e-4)


@pytest.mark.parametrize(
    ("name", "blocks", "group"),
    [
        *(("tsm_r50_sthv2", 16, None), ("tsm_r50_nl_k400", 16, 2), ("tsn_r50_anet", 0, None)),
        pytest.param("tsm_r101_sthv2", 33, 2, marks=pytest.mark.slow),
    ],
)
@torch.no_grad()
def test_a_network_in_parts_computes_the_same(name: str, blocks: int, group: int | None) -> None:
    net, clip = lively(build(name, seed=3)), random_clip(4, 3, 64, 64)
    form = split_channels(fold_batch_norm(SingleClip(net, 4, group)))
    assert sum(isinstance(module, SplitBottleneck) for module in form.modules()) == blocks
    assert close(form(clip), SingleClip(net, 4, group)(clip), 1e-4)


@torch.no_grad()
def test_parts_of_a_network_shifted_in_place() -> None:
    net, clip = lively(build("tsm_r50_sthv2", seed=3)), random_clip(4, 3, 64, 64)
    residual = SingleClip(net, 4)(clip)
    for block in net.modules():
        if isinstance(block, Bottleneck):
            block.in_place = True
    wanted = SingleClip(net, 4)(clip)
    assert not close(wanted, residual, 1e-3)
    assert close(split_channels(fold_batch_norm(SingleClip(net, 4)))(clip), wanted, 1e-4)


def test_parts_shift_nothing_that_stays() -> None:
    net = split_channels(fold_batch_norm(build("tsm_r50_sthv2", seed=3)))
    shapes: list[tuple[int, int]] = []

    def shift(x: Tensor, fold: int) -> Tensor:
        shapes.append((x.shape[1], fold))
        return shift_clip(x, fold)

    net(random_clip(2, 3, 32, 32), 2, shift)
    assert len(shapes) == 16
    assert all(channels == 2 * fold for channels, fold in shapes)


@torch.no_grad()
def test_deployed_takes_pixels_and_moves_channels(net: nn.Module) -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    pixels = torch.randint(0, 256, (1, 64, 64, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    frame = (pixels.permute(0, 3, 1, 2) / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    states = [random_clip(*shape) for shape in state_shapes(net, 3, 64)]
    wanted = StreamStep(net)(frame, *states)

    camera = Deployed(StreamStep(net), mean, std, channels_last=True)
    got = camera(pixels, *(state.permute(0, 2, 3, 1) for state in states))
    assert close(got[0], wanted[0], 1e-4)
    for state, reference in zip(got[1:], wanted[1:], strict=True):
        assert close(state.permute(0, 3, 1, 2), reference, 1e-4)

    first = Deployed(StreamStep(net), mean, std, channels_last=False)(pixels.permute(0, 3, 1, 2), *states)
    assert close(first[0], wanted[0], 1e-4)
    assert torch.equal(Deployed(StreamStep(net), None, None, channels_last=False)(frame, *states)[0], wanted[0])


def test_random_weights_come_from_the_seed() -> None:
    one, same, other = (build("tsm_mbv2_online", seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not torch.equal(one["features.0.0.weight"], other["features.0.0.weight"])
    assert not build("tsm_mbv2_online").training
