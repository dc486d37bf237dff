"""Compare two models, a file and its network in torch, output by output and step by step.

Never one step: converters have dropped state updates without a word, and the first step still agrees.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from tsmzoo.artifact.arrays import probabilities
from tsmzoo.artifact.contract import Case, Contract, Verification
from tsmzoo.inference.model import Model, States
from tsmzoo.typing import Array

#: Share of torch's own change of the logits, when a clip is reversed, that a file must show.
_ORDER_MATTERS = 0.5
#: Frames that a stream is said to have seen when it is tried whether its means still move, frames that they have for
#: it, and how far they may be from where torch's come to, relative to the way: in int8 what they are means of is
#: rounded itself.
_MANY, _AFTER, _ASTRAY, _ASTRAY_INT8 = 1000, 8, 0.1, 0.6


@dataclass
class _Comparison:
    """Ranges and differences of every output over one case."""

    low: dict[str, float] = field(default_factory=dict)
    high: dict[str, float] = field(default_factory=dict)
    worst: dict[str, float] = field(default_factory=dict)
    total: dict[str, float] = field(default_factory=dict)
    #: The first output, logits or probabilities.
    answer: str = "logits"
    steps: int = 0
    same_top1: int = 0
    answers: int = 0
    #: The last answers of both.
    expected: Array | None = None
    found: Array | None = None
    #: An output that makes any further comparison pointless, and why.
    broken: tuple[str, str] | None = None

    def add(self, expected: dict[str, Array], found: dict[str, Array]) -> None:
        self.steps += 1
        for name, reference in expected.items():
            if reference.shape != found[name].shape:
                self.broken = name, f"{name} is of shape {found[name].shape} instead of {reference.shape}"
            elif not np.isfinite(reference).all():
                self.broken = name, f"the network itself gives {name} that is not finite: its weights are damaged"
            elif not np.isfinite(found[name]).all():
                self.broken = name, f"{name} differs: it is not finite at step {self.steps}, in torch it is"
            if self.broken:
                return
            difference = np.abs(reference.astype("float64") - found[name])
            self.worst[name] = max(self.worst.get(name, 0.0), float(difference.max()))
            self.total[name] = self.total.get(name, 0.0) + float(difference.mean())
            self.low[name] = min(self.low.get(name, np.inf), float(reference.min()))
            self.high[name] = max(self.high.get(name, -np.inf), float(reference.max()))
        agree = expected[self.answer].argmax(-1) == found[self.answer].argmax(-1)
        self.same_top1 += int(agree.sum())
        self.answers += agree.size
        self.expected, self.found = expected[self.answer], found[self.answer]

    def relative(self, values: dict[str, float]) -> dict[str, float]:
        """Divide each output's value by its range in torch; a constant output's counts as it is."""
        return {name: value / ((self.high[name] - self.low[name]) or 1.0) for name, value in values.items()}


def compare(
    reference: Model, candidate: Model, *, tolerance: float, steps: int, video: Array | None = None
) -> Verification:
    """Compare `candidate` with `reference` and judge by `tolerance`, relative to each output's range.

    An online model gets streams of `steps` frames, states fed back, each from zero states; an offline
    one gets clips, one of them reversed in time. Inputs are seeded noise and, where given, the frames
    of a real `video`, S, C, H, W in 0…255.
    """
    contract = candidate.contract
    results = [(name, _compared(reference, candidate, pixels)) for name, pixels in _cases(contract, steps, video)]
    if broken := next((comparison.broken for _, comparison in results if comparison.broken), None):
        return Verification(
            status="failed",
            runtime=candidate.runner.runtime,
            reason=broken[1],
            tolerance=tolerance,
            worst=broken[0],
            steps=sum(comparison.steps for _, comparison in results),
        )
    errors = {name: comparison.relative(comparison.worst) for name, comparison in results}
    means = [
        value / comparison.steps
        for _, comparison in results
        for value in comparison.relative(comparison.total).values()
    ]
    error, worst = max((value, output) for outputs in errors.values() for output, value in outputs.items())
    agreement = sum(c.same_top1 for _, c in results) / sum(c.answers for _, c in results)
    reason = None
    if not error <= tolerance:
        reason = f"{worst} differs by {error:.2e} of its range, more than {tolerance:.0e}"
    elif contract.precision == "fp16" and agreement < 1 and contract.weights != "random":  # whose logits nearly tie
        reason = f"the first class is the same in {agreement:.1%} of the answers only"
    elif contract.averages and (stuck := _stuck_mean(reference, candidate)):
        reason = stuck
    elif contract.mode == "offline":
        (_, forward), (_, backward) = results[:2]
        expected, found = _change(forward.expected, backward.expected), _change(forward.found, backward.found)
        if found < _ORDER_MATTERS * expected - tolerance:
            change = f"a reversed clip changes the logits by {found:.1e}, in torch by {expected:.1e}"
            reason = f"{change}: {'the shift' if contract.family == 'tsm' else 'the order of frames'} is lost"
    return Verification(
        status="failed" if reason else "passed",
        runtime=candidate.runner.runtime,
        reason=reason,
        tolerance=tolerance,
        max_rel_error=error,
        mean_rel_error=float(np.mean(means)),
        worst=worst,
        top1_agreement=agreement,
        steps=sum(comparison.steps for _, comparison in results),
        cases=tuple(
            Case(name=name, steps=comparison.steps, max_rel_error=max(errors[name].values()))
            for name, comparison in results
        ),
    )


def _compared(reference: Model, candidate: Model, pixels: Array) -> _Comparison:
    contract = candidate.contract
    comparison = _Comparison(answer=contract.answer)
    if contract.mode == "offline":
        comparison.add(_as_given(reference.run_clips(pixels), contract), candidate.run_clips(pixels))
        return comparison
    frames = [pixels[:, step] for step in range(pixels.shape[1])]
    # One after the other: runtimes whose threads wait for work by spinning slow each other down.
    expectations = list(reference.run_stream(frames))
    for expected, found in zip(expectations, candidate.run_stream(frames), strict=True):
        comparison.add(_as_given(expected, contract), found)
    return comparison


def _stuck_mean(reference: Model, candidate: Model) -> str | None:
    """Return which running mean moves otherwise than in torch once a stream is long, and None where none does.

    What a frame adds to a mean of a thousand is less than half a step of int8, or of a half: a file that rounds means
    agrees for hundreds of frames, and then stands still.
    """
    for (name, expected), found in zip(_moves(reference).items(), _moves(candidate).values(), strict=True):
        astray = np.abs(expected - found).sum() / (np.abs(expected).sum() or 1.0)
        if not astray <= (_ASTRAY_INT8 if candidate.contract.precision == "int8" else _ASTRAY):
            return f"{name}, a mean, is {astray:.0%} off its way after {_MANY} frames: it is rounded"
    return None


def _moves(model: Model) -> dict[str, Array]:
    """Return by how much each mean of a long stream moves when the scene goes dark."""
    contract = model.contract
    bright = moving_noise(2, 4, len(contract.mean), contract.size)
    states: States | None = None
    for pixels in bright:
        _, states = model.run_step(pixels[None], states)
    assert states is not None
    kinds = {tensor.name: tensor.kind for tensor in contract.inputs}
    before = {name: np.full_like(state, _MANY) if kinds[name] == "count" else state for name, state in states.items()}
    states = before
    for _ in range(_AFTER):
        _, states = model.run_step(np.zeros_like(bright[:1]), states)
    return {name: (states[name] - before[name]).ravel() for name in states if kinds[name] == "mean"}


def _as_given(outputs: dict[str, Array], contract: Contract) -> dict[str, Array]:
    """Return a network's outputs as the file gives them: probabilities for logits, and only states that come out."""
    if contract.state == "implicit":
        outputs = {"logits": outputs["logits"]}
    if contract.answer == "logits":
        return outputs
    answer = {contract.answer: probabilities(outputs["logits"], contract.activation)}
    return answer | {name: value for name, value in outputs.items() if name != "logits"}


def _cases(contract: Contract, steps: int, video: Array | None) -> Iterator[tuple[str, Array]]:
    """Yield names and pixels, N, T, C, H, W, of what a file is fed."""
    channels, length = len(contract.mean), contract.frames if contract.mode == "offline" else steps
    noise = moving_noise(0, length, channels, contract.size)[None]
    other = moving_noise(1, length, channels, contract.size)[None]
    if contract.mode == "offline":
        yield "noise", noise
        yield "the same reversed in time", noise[:, ::-1]
        yield "other noise", other
    else:
        yield "noise, from zero states", noise
        yield "other noise, after a reset", other
    if isinstance(contract.main_input.shape[0], str):
        yield "a batch of two", np.concatenate([other, noise])
    if video is not None:
        chosen = np.linspace(0, len(video) - 1, length).astype(int) if contract.mode == "offline" else slice(None)
        yield "video", video[chosen][None]


def moving_noise(seed: int, frames: int, channels: int, size: int) -> Array:
    """Return blotches that drift, under a veil of noise: T, C, H, W, uint8."""
    rng = np.random.default_rng(seed)
    cell, drift = max(size // 14, 1), max(size // 56, 1)
    cells = (size + drift * frames) // cell + 1
    canvas = rng.integers(0, 200, (channels, cells, cells), dtype="uint8").repeat(cell, 1).repeat(cell, 2)
    views = [canvas[:, :size, drift * t : drift * t + size] for t in range(frames)]
    return np.stack(views) + rng.integers(0, 56, (frames, channels, size, size), dtype="uint8")


def _change(forward: Array | None, backward: Array | None) -> float:
    """Return how far the logits of a clip and of its reversal are apart, relative to their range."""
    assert forward is not None
    assert backward is not None
    return float(np.abs(forward - backward).max() / (np.ptp(forward) or 1.0))
