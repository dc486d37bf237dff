"""Print the report of `export` and `verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tsmzoo.cli import _terminal as terminal

if TYPE_CHECKING:
    from tsmzoo.artifact.contract import Contract, Verification


def print_report(
    path: Path, contract: Contract, report: Verification, seconds: float, *, json: bool, kit: Path | None = None
) -> None:
    from tsmzoo.export import report as report_

    if json:
        document = report_.document(path, contract, report, seconds)
        terminal.print_json(document | ({"kit": str(kit)} if kit else {}))
    else:
        terminal.say(report_.text(path, contract, report, seconds))
        if kit:
            terminal.say(f"  kit in {kit}: its README.md says how to use it")
