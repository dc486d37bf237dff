"""The result of an export or a verification, as a struct and as text."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import msgspec
from msgspec import UNSET, UnsetType

from tsmzoo.artifact.contract import Contract, Verification
from tsmzoo.artifact.converter import converter_of
from tsmzoo.artifact.store import read_contract
from tsmzoo.formats import Format
from tsmzoo.text import joined


class Artifact(msgspec.Struct, frozen=True, kw_only=True, dict=True, rename={"path": "artifact"}):
    """An exported file and its verification; `export --json` and `verify --json` are its serialization.

    Examples:
        >>> artifact = tsmzoo.verify("gestures.tflite")
        >>> artifact.path, artifact.format, artifact.steps
        ('gestures.tflite', 'tflite', 32)
        >>> artifact.contract.main_input.shape, artifact.contract.main_input.dtype
        ((1, 64, 64, 3), 'uint8')
    """

    #: Path of the file.
    path: str
    sha256: str | None
    #: Size of the file.
    bytes: int | None
    #: Time that the export or the verification took.
    seconds: float
    #: The largest difference from the network, relative to the range of that output; null if it could not be compared.
    max_rel_error: float | None
    #: Frames and clips that were compared.
    steps: int
    #: Whether the file gives what the network gives.
    passed: bool
    model: str
    format: str
    precision: str
    #: `published`, `local` or `random`.
    weights: str
    verification: Verification
    #: Folder of the kit, if one was asked for.
    kit: str | UnsetType = UNSET

    @cached_property  # which is no field of the JSON
    def contract(self) -> Contract:
        """The contract of the file: tensors, labels, preprocessing, what it was made from.

        `export` and `verify` keep it; of a result that was read from JSON it is read beside the file. Raises
        ArtifactError.
        """
        return read_contract(Path(self.path))


def result(path: Path, contract: Contract, seconds: float, kit: Path | None = None) -> Artifact:
    """Return the result of an export or a verification of the file at `path`, which `contract` holds."""
    verification = contract.verification
    assert verification is not None
    artifact = Artifact(
        path=str(path),
        sha256=contract.sha256,
        bytes=contract.bytes,
        seconds=round(seconds, 2),
        max_rel_error=verification.max_rel_error,
        steps=verification.steps,
        passed=verification.status == "passed",
        model=contract.model,
        format=contract.format,
        precision=contract.precision,
        weights=contract.weights,
        verification=verification,
        kit=UNSET if kit is None else str(kit),
    )
    artifact.__dict__["contract"] = contract  # the folder may change, and the file be deleted
    return artifact


def text(artifact: Artifact) -> str:
    """Return the same to read."""
    contract, v = artifact.contract, artifact.verification
    remark = converter_of(Format(contract.format)).remarks.get(contract.precision)
    weights = f"{contract.weights} weights"
    if contract.checkpoint:
        weights += f", sha256 {contract.checkpoint.sha256[:12]}…"
    lines = [
        f"{artifact.path}  {(contract.bytes or 0) / 1e6:.2f} MB  "
        f"{contract.format} {contract.precision}{f' ({remark})' if remark else ''}, {contract.mode}, {weights}"
    ]
    for tensors, arrow in ((contract.inputs, "in "), (contract.outputs, "out")):
        shown = [
            f"{t.name} {'x'.join(map(str, t.shape))} {t.dtype if t.type == 'tensor' else 'image'}" for t in tensors[:2]
        ]
        if len(tensors) > 2:
            shown.append(f"… {tensors[-1].name}")
        lines.append(f"  {arrow}  {', '.join(shown)}")
    if v.max_rel_error is None:
        lines.append(f"  {v.status.upper()}: {v.reason}")
    else:
        # int8 is judged on real clips, below.
        allowed = f"allowed {v.tolerance:.0e}" if v.tolerance < 1 else "of noise, which is not judged"
        lines.append(
            f"  {v.status.upper()}: largest error {v.max_rel_error:.1e} of an output's range ({v.worst}), "
            f"{allowed}; same first class in {v.top1_agreement:.0%}"
        )
        cases = "; ".join(
            f"{case.name}, {case.steps} {_plural(contract, case.steps)}: {case.max_rel_error:.1e}" for case in v.cases
        )
        lines.append(f"  {v.runtime} against torch: {cases}")
    if q := v.quality:
        scores = f"top-1 {q.top1_float:.2f} % in float, {q.top1:.2f} % so; " if q.top1 is not None else ""
        drift = (
            f"; {q.drift[0]:.3f} after the first frame of a stream, {q.drift[-1]:.3f} after {len(q.drift)}"
            if q.drift
            else ""
        )
        lines.append(
            f"  next to the float file on {q.data}: {scores}same first class in {q.agreement:.1%}, "
            f"cosine of logits {q.cosine:.4f}{drift}"
        )
        if q.costs:
            dearest = ", ".join(f"{name} {cost:.1e}" for name, cost in q.costs[: max(5, len(q.kept_float))])
            lines.append(f"  kept float: {', '.join(q.kept_float)}; dearest of {len(q.costs)} operators: {dearest}")
    lines.append(f"  structure: {', '.join(v.structure)}")
    lines += [f"  note: {advice}" for advice in v.advice]
    lines.append(f"  {artifact.seconds:.1f} s")
    return joined(lines)


def _plural(contract: Contract, count: int) -> str:
    noun = "clip" if contract.mode == "offline" else "frame"
    return noun if count == 1 else noun + "s"
