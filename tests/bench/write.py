"""Measures, and writes BENCHMARKS.md: all sections, or those that are named; the others stay as they are.

Run by `make bench`. A section is a module here: its docstring says what was measured, `section(folder)` measures it.
"""

from __future__ import annotations

import datetime
import importlib
import os
import platform
import re
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

OUT = Path(__file__).parents[2] / "BENCHMARKS.md"
SECTIONS = {
    "peers": "Other converters",
    "precisions": "Lower precision",
    "shift": "The shift",
    "volumes": "3-D as 2-D",
    "exporting": "Exports",
    "evaluation": "Evaluation",
    "rivals": "Rivals",
    "startup": "Start-up",
}
LIBRARIES = ("tsmzoo", "torch", "onnxruntime", "ai-edge-litert", "litert-torch", "onnxscript", "coremltools")
INTRODUCTION = """# Benchmarks

Written by `make bench`; `python tests/bench/write.py NAME` measures one section again. `tsmzoo bench` times the files:
each in a process of its own, one thread, in turns, round by round, on the same core, so that other load on the machine
affects all alike; processes are started four times. **Ratios are medians over the rounds. Between files of one runtime
they hold on other machines too; milliseconds do not.** Peak memory is what a process held at most, less what it held
once the runtime was imported.
"""


def main() -> None:
    wanted = sys.argv[1:] or list(SECTIONS)
    if unknown := set(wanted) - SECTIONS.keys():
        sys.exit(f"no section is called {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    for name in wanted:
        print(f"{name} …", file=sys.stderr, flush=True)
        module = importlib.import_module(name)
        with tempfile.TemporaryDirectory() as folder:
            table = module.section(Path(folder))
        about = " ".join((module.__doc__ or "").split("\n\n", 1)[0].split())
        more = (module.__doc__ or "").split("\n\n", 1)[1:]
        text = "\n\n".join([about, *(paragraph.strip() for paragraph in more), table, f"{_conditions()}"])
        _replace(name, text)


def _replace(name: str, text: str) -> None:
    """Put a section in its place in BENCHMARKS.md."""
    older = OUT.read_text("utf-8") if OUT.exists() else ""
    found = dict(re.findall(r"<!-- (\w+) -->\n(.*?)\n<!-- end -->", older, re.DOTALL))
    found[name] = f"## {SECTIONS[name]}\n\n{text}"
    parts = [f"<!-- {key} -->\n{found[key]}\n<!-- end -->\n" for key in SECTIONS if key in found]
    OUT.write_text("\n".join([INTRODUCTION, *parts]), encoding="utf-8")


def _conditions() -> str:
    """Return when and on what it was measured."""
    versions = [f"{name} {_version(name)}" for name in LIBRARIES]
    return (
        f"*{datetime.date.today()}; {_processor()}, {os.cpu_count()} cores, {platform.system()}, "
        f"Python {platform.python_version()}; {', '.join(versions)}.*"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    main()
