"""Print the result of `export` and `verify`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tsmzoo.cli import _terminal as terminal

if TYPE_CHECKING:
    from tsmzoo.exporting.report import Artifact


def print_report(artifact: Artifact, *, json: bool) -> None:
    from tsmzoo.exporting.report import text

    if json:
        terminal.print_json(artifact)
        return
    terminal.say(text(artifact))
    if artifact.kit:
        terminal.say(f"  kit in {artifact.kit}: its README.md says how to use it")
