"""The test vector of a kit: inputs, and what the file must answer to them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tsmzoo.artifact.arrays import feed
from tsmzoo.artifact.contract import Contract
from tsmzoo.data import motion, sampling, transforms
from tsmzoo.exporting.compare import moving_noise
from tsmzoo.inference.model import Model
from tsmzoo.typing import Array

#: Frames that a stream is fed at the least: converters have dropped states, and the first step still agrees.
_STEPS = 16
#: What the models of the `motion` task are shown: a thing that comes closer, and as another clip one that opens.
_SEED, _SCENES = 3, (2, 18)
#: What two processors may differ by in 8 bits, of the logits' range: less than what a file may differ by from torch.
_ROUNDING = 0.1
#: What ignores the order of frames, or has lost the shift, gives both the same answer.
_BOTH_WAYS = "forwards and then backwards"


@dataclass(frozen=True)
class Vector:
    """What a file is fed, and what it must answer."""

    #: A stream's frames, or clips: N, then the file's own main input.
    inputs: Array
    #: After each frame, or of each clip: N, classes.
    logits: Array
    #: What the inputs show.
    shown: str
    #: What gave the logits.
    runtime: str
    #: Largest difference allowed, relative to the range of the logits.
    tolerance: float


# --- the test vector -----------------------------------------------------------------------------------------------


def vector(model: Model) -> Vector:
    """Return inputs of an exported file, and what it answers to them."""
    contract = model.contract
    assert contract.verification is not None
    pixels, shown = _pixels(contract)
    if contract.mode == "online":
        given = [feed(frame[None], contract) for frame in pixels]
        answers = [out["logits"][0] for out in model.run_stream(frame[None] for frame in pixels)]
    else:
        given = [feed(clip[None], contract) for clip in pixels]
        answers = [model.run_clips(clip[None])["logits"][0] for clip in pixels]
    tolerance = min(contract.verification.tolerance, _ROUNDING)
    return Vector(np.stack(given), np.stack(answers), shown, model.runner.runtime, tolerance)


def _pixels(contract: Contract) -> tuple[Array, str]:
    """Return camera values, 0…255, and what they show: frames, T, C, H, W, or clips, N, T, C, H, W."""
    channels, length = len(contract.mean), _STEPS if contract.mode == "online" else contract.frames
    if contract.dataset == "motion" and channels == 3:
        scene, other = (_scene(contract, index) for index in _SCENES)
        if contract.mode == "online":
            every = max(1, round(motion.FPS / (contract.target_fps or motion.FPS)))
            there_and_back = np.concatenate([scene[::every], scene[::-1][::every]])
            times = math.ceil(_STEPS / len(there_and_back))
            return np.concatenate([there_and_back] * times), f"a scene of the motion task, {_BOTH_WAYS}"
        indices = sampling.clip(motion.FRAMES, length, contract.stride)
        clips = [scene[indices], scene[indices][::-1], other[indices]]
        return np.stack(clips), f"a scene of the motion task, {_BOTH_WAYS}, and another scene"
    noise = moving_noise(0, length, channels, contract.size)
    if contract.mode == "online":
        return noise, "noise that moves"
    other = moving_noise(1, length, channels, contract.size)
    return np.stack([noise, noise[::-1], other]), f"noise that moves, {_BOTH_WAYS}, and other noise"


def _scene(contract: Contract, index: int) -> Array:
    from PIL import Image

    frames, _ = motion.scene(index, _SEED)
    return np.stack([transforms.prepared(Image.fromarray(frame), contract.resize, contract.size) for frame in frames])
