"""The command line: one module per command, which reads options, calls one function of the library, and prints."""

from tsmzoo.cli._main import app, main

__all__ = ["app", "main"]
