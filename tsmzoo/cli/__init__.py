"""The command line: a file a verb, each of which reads its options, calls one function of the library, and prints.

Nothing heavy is imported at the top of its modules: `--help`, `list` and `info` answer without torch.
"""

from tsmzoo.cli import (  # noqa: F401, I001  # `--help` keeps this order
    list,
    info,
    download,
    flops,
    data,
    train,
    export,
    verify,
    eval,
    bench,
    report,
    run,
    demo,
    registry,
)
from tsmzoo.cli._main import app, main

__all__ = ["app", "main"]
