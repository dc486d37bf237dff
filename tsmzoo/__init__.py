"""Pretrained TSN, TSM, I3D, X3D and MoViNet video recognition models, and their conversion for phones.

Examples:
    >>> model = tsmzoo.load("tsm_mbv2_motion")
    >>> model.classify("opening.mp4")[0].label
    'opening'
"""

from __future__ import annotations

import os.path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tsmzoo.api import (
        benchmark,
        card,
        check_links,
        check_registry,
        count_flops,
        describe_checkpoint,
        doctor,
        download,
        draw_accuracy,
        evaluate,
        export,
        generate_clips,
        list_cache,
        list_models,
        load,
        mirror,
        model_info,
        model_table,
        prune_cache,
        push,
        train,
        verify,
        verify_cache,
        watch,
    )
    from tsmzoo.benchmarking.run import BenchmarkRow
    from tsmzoo.catalog.cached import CachedFile
    from tsmzoo.catalog.check import EntryCheck
    from tsmzoo.catalog.doctor import Diagnosis
    from tsmzoo.catalog.download import Download
    from tsmzoo.catalog.flops import Cost
    from tsmzoo.catalog.info import ModelInfo
    from tsmzoo.catalog.links import LinkCheck
    from tsmzoo.catalog.listing import ModelRow
    from tsmzoo.catalog.own_checkpoint import CheckpointInfo
    from tsmzoo.errors import (
        ArtifactError,
        CheckpointError,
        DataError,
        DownloadError,
        ExportError,
        RegistryError,
        TrainingError,
        UsageError,
        VerificationError,
        VideoError,
        ZooError,
    )
    from tsmzoo.evaluation.report import EvaluationResult
    from tsmzoo.exporting.card import Pushed
    from tsmzoo.exporting.report import Artifact
    from tsmzoo.inference.model import Model, Prediction
    from tsmzoo.inference.reference import ModelReference
    from tsmzoo.inference.smoothing import Smoothing
    from tsmzoo.inference.stream import Stream
    from tsmzoo.live.answer import Answer
    from tsmzoo.registry import Entry as ModelEntry
    from tsmzoo.training.train import TrainingResult
    from tsmzoo.weights.mirror import Mirrored

__version__ = "0.2.0"

__all__ = [
    "Answer",
    "Artifact",
    "ArtifactError",
    "BenchmarkRow",
    "CachedFile",
    "CheckpointError",
    "CheckpointInfo",
    "Cost",
    "DataError",
    "Diagnosis",
    "Download",
    "DownloadError",
    "EntryCheck",
    "EvaluationResult",
    "ExportError",
    "LinkCheck",
    "Mirrored",
    "Model",
    "ModelEntry",
    "ModelInfo",
    "ModelReference",
    "ModelRow",
    "Prediction",
    "Pushed",
    "RegistryError",
    "Smoothing",
    "Stream",
    "TrainingError",
    "TrainingResult",
    "UsageError",
    "VerificationError",
    "VideoError",
    "ZooError",
    "__version__",
    "benchmark",
    "card",
    "check_links",
    "check_registry",
    "count_flops",
    "describe_checkpoint",
    "doctor",
    "download",
    "draw_accuracy",
    "evaluate",
    "export",
    "generate_clips",
    "list_cache",
    "list_models",
    "load",
    "mirror",
    "model_info",
    "model_table",
    "prune_cache",
    "push",
    "train",
    "verify",
    "verify_cache",
    "watch",
]

# In a checkout, converters/ and recipes/ lie beside this folder; once installed, inside it (pyproject.toml).
if not os.path.exists(os.path.join(__path__[0], "registry.yaml")):
    __path__.append(os.path.dirname(__path__[0]))

#: Where a public name is, if it is no function of `api` and no error.
_MODULES = {
    "Answer": "live.answer",
    "Artifact": "exporting.report",
    "BenchmarkRow": "benchmarking.run",
    "CachedFile": "catalog.cached",
    "CheckpointInfo": "catalog.own_checkpoint",
    "Cost": "catalog.flops",
    "Diagnosis": "catalog.doctor",
    "Download": "catalog.download",
    "EntryCheck": "catalog.check",
    "EvaluationResult": "evaluation.report",
    "LinkCheck": "catalog.links",
    "Mirrored": "weights.mirror",
    "Model": "inference.model",
    "ModelEntry": "registry",
    "ModelInfo": "catalog.info",
    "ModelReference": "inference.reference",
    "ModelRow": "catalog.listing",
    "Prediction": "inference.model",
    "Pushed": "exporting.card",
    "Smoothing": "inference.smoothing",
    "Stream": "inference.stream",
    "TrainingResult": "training.train",
}


if not TYPE_CHECKING:  # to a type checker, any attribute would exist

    def __getattr__(name: str) -> object:
        """Import a public name when it is first asked for: `import tsmzoo` loads neither torch nor numpy (PEP 562)."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        module = _MODULES.get(name, "errors" if name.endswith("Error") else "api")
        found: object = getattr(import_module(f"{__name__}.{module}"), "Entry" if name == "ModelEntry" else name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
