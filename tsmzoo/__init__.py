"""Pretrained TSN, TSM and I3D video recognition models, and their conversion for phones.

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
        count_flops,
        download,
        evaluate,
        export,
        list_models,
        load,
        model_info,
        train,
        verify,
    )
    from tsmzoo.benchmarking.run import BenchmarkRow
    from tsmzoo.catalog.download import Download
    from tsmzoo.catalog.flops import Cost
    from tsmzoo.errors import (
        ArtifactError,
        CheckpointError,
        DataError,
        DownloadError,
        ExportError,
        RegistryError,
        TrainingError,
        VerificationError,
        VideoError,
        ZooError,
    )
    from tsmzoo.evaluation.report import EvaluationResult
    from tsmzoo.exporting.report import Artifact
    from tsmzoo.inference.model import Model, Prediction
    from tsmzoo.inference.smoothing import Smoothing
    from tsmzoo.inference.stream import Stream
    from tsmzoo.registry import Entry as ModelEntry
    from tsmzoo.training.train import TrainingResult

__version__ = "0.2.0"

__all__ = [
    "Artifact",
    "ArtifactError",
    "BenchmarkRow",
    "CheckpointError",
    "Cost",
    "DataError",
    "Download",
    "DownloadError",
    "EvaluationResult",
    "ExportError",
    "Model",
    "ModelEntry",
    "Prediction",
    "RegistryError",
    "Smoothing",
    "Stream",
    "TrainingError",
    "TrainingResult",
    "VerificationError",
    "VideoError",
    "ZooError",
    "__version__",
    "benchmark",
    "count_flops",
    "download",
    "evaluate",
    "export",
    "list_models",
    "load",
    "model_info",
    "train",
    "verify",
]

# In a checkout, converters/ and recipes/ lie beside this folder; once installed, inside it (pyproject.toml).
if not os.path.exists(os.path.join(__path__[0], "registry.yaml")):
    __path__.append(os.path.dirname(__path__[0]))

#: Where a public name is, if it is no function of `api` and no error.
_MODULES = {
    "Artifact": "exporting.report",
    "BenchmarkRow": "benchmarking.run",
    "Cost": "catalog.flops",
    "Download": "catalog.download",
    "EvaluationResult": "evaluation.report",
    "Model": "inference.model",
    "ModelEntry": "registry",
    "Prediction": "inference.model",
    "Smoothing": "inference.smoothing",
    "Stream": "inference.stream",
    "TrainingResult": "training.train",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for: `import tsmzoo` waits for neither torch nor numpy (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module = _MODULES.get(name, "errors" if name.endswith("Error") else "api")
    found: object = getattr(import_module(f"{__name__}.{module}"), "Entry" if name == "ModelEntry" else name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
