"""Time of short commands: of several starts in a row the shortest, which others disturbed least, and the median."""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import median

import common

PLAIN = (sys.executable, "-c", "pass")
COMMANDS = (("--help", 20), ("list", 20), ("list --all", 20), ("info tsm_r50_sthv2", 20), ("flops tsm_r50_sthv2", 5))


def section(folder: Path) -> str:
    """Return the section's table."""
    rows: list[list[object]] = []
    for command, starts in COMMANDS:
        words = [sys.executable, "-m", "tsmzoo", *command.split()]
        times = [common.run(words, cwd=Path.cwd()) for _ in range(starts)]
        rows.append([f"`tsmzoo {command}`", f"{min(times):.2f}", f"{median(times):.2f}"])
    times = [common.run(PLAIN, cwd=folder) for _ in range(20)]
    rows.append(["`python -c pass`", f"{min(times):.2f}", f"{median(times):.2f}"])
    return common.table({"command": "-", "shortest, s": ">", "median, s": ">"}, rows)


if __name__ == "__main__":
    common.alone(section)
