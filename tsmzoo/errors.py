"""The errors that a user can cause; the command line prints each as one line and exits 1.

    ZooError
    ├── UsageError         values that no call can mean, or that exclude one another; the command line exits 2
    ├── RegistryError      registry.yaml, a user's registry, an unknown model id
    ├── DownloadError      network, digest, cache
    ├── CheckpointError    a weights file that cannot or must not be loaded
    ├── ExportError        a conversion that is not possible
    │   └── VerificationError   a file that differs from its network, and was not kept
    ├── ArtifactError      an exported file or its JSON that is missing, damaged or foreign
    ├── VideoError         a video that cannot be decoded
    ├── DataError          a list of videos that is missing, malformed or not the model's
    └── TrainingError      a recipe or a run that cannot be trained or resumed

A message says what is wrong, which name or file, and what to do next. Whatever is not a
ZooError is a bug and keeps its traceback.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from tsmzoo.artifact.contract import Contract


class ZooError(Exception):
    """Root of every error that a user can cause; its message is one line.

    Examples:
        >>> try:
        ...     tsmzoo.load("tsm_r50_shtv2")
        ... except tsmzoo.ZooError as error:
        ...     print(error)
        no model is called 'tsm_r50_shtv2': did you mean tsm_r50_sthv2, tsm_r50_sthv1, tsm_r101_sthv2?
    """


class UsageError(ZooError):
    """Values that no call can mean, or that exclude one another.

    The message has names of arguments in backticks; the command line shows its options in their place, and exits 2.
    """


class RegistryError(ZooError):
    """A registry is malformed, or does not know the name asked for."""


class DownloadError(ZooError):
    """A published file could not be fetched, or is not the file that was published."""


class CheckpointError(ZooError):
    """A weights file is refused; nothing of it was loaded."""


class ExportError(ZooError):
    """A model cannot be written in the format or form asked for."""


class VerificationError(ExportError):
    """A converted file differs from its network, and was not kept."""

    def __init__(self, message: str, path: Path, contract: Contract) -> None:
        super().__init__(message)
        #: Where the file would have been, and its contract, whose verification says what differs.
        self.path, self.contract = path, contract

    def __reduce__(self) -> tuple[type[VerificationError], tuple[str, Path, Contract]]:
        return type(self), (str(self), self.path, self.contract)


class ArtifactError(ZooError):
    """An exported file or the JSON beside it is missing, damaged or does not fit."""


class VideoError(ZooError):
    """A video file gives no frames."""


class DataError(ZooError):
    """A list of videos is missing or malformed, or its classes are not the model's."""


class TrainingError(ZooError):
    """A training recipe is not possible, or a run cannot be resumed."""
