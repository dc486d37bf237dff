"""The header of predictions that no model made."""

from __future__ import annotations

from tsmzoo.evaluation.predictions import Header
from tsmzoo.evaluation.protocol import EvaluationPlan

PLAN = EvaluationPlan("p", "mit", "uniform", 1, 8, 8, 1, 73, 64, "logits")
HEADER = Header(
    model="m",
    format="torch",
    precision="fp32",
    artifact_sha256=None,
    mean=(0.5,),
    std=(0.25,),
    weights="published",
    weights_sha256="1" * 64,
    seed=None,
    plan=PLAN,
    observe=(),
    list_sha256="2" * 64,
    videos_sha256="5" * 64,
    dataset="d",
    named=True,
    videos=10,
    classes=("x", "y"),
    decoder="PyAV",
    runtime="torch",
    tsmzoo="0",
)
