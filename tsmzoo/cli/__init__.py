"""The command line: each command parses, calls one function of the library, and prints.

Nothing heavy is imported at the top of its modules: `--help`, `list` and `info` answer without torch.
"""

from tsmzoo.cli import zoo, learn, convert, measure, bench, report, live, registry  # noqa: F401, I001  # `--help` keeps this order
from tsmzoo.cli.root import app, main

__all__ = ["app", "main"]
