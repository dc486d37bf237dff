"""The notebook of the Python API: tutorials/python.ipynb.

`python docs/notebook.py` runs its cells and keeps what they print. cog shows them in tutorials/python.md. A test runs
them once more, and compares.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
from pathlib import Path
from typing import Any

NOTEBOOK = Path(__file__).parent / "tutorials" / "python.ipynb"


def cells() -> list[dict[str, Any]]:
    return json.loads(NOTEBOOK.read_text("utf-8"))["cells"]


def printed(cell: dict[str, Any]) -> str:
    """Return what a code cell printed when the notebook was saved."""
    return "".join("".join(output["text"]) for output in cell["outputs"])


def run() -> list[str]:
    """Run the code cells in the current folder; return what each prints."""
    names: dict[str, Any] = {}
    found = []
    for cell in cells():
        if cell["cell_type"] == "code":
            with contextlib.redirect_stdout(io.StringIO()) as stdout:
                exec(compile("".join(cell["source"]), NOTEBOOK.name, "exec"), names)
            found.append(stdout.getvalue())
    return found


def page() -> str:
    """Return the notebook as Markdown."""
    parts = []
    for cell in cells():
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
        else:
            parts.append(f"```python\n{source}\n```")
            if output := printed(cell):
                parts.append(f"```text\n{output}```")
    return "\n\n".join(parts)


def main() -> None:
    document = json.loads(NOTEBOOK.read_text("utf-8"))
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        outputs = run()
    code = [cell for cell in document["cells"] if cell["cell_type"] == "code"]
    for number, (cell, output) in enumerate(zip(code, outputs, strict=True), 1):
        text = output.splitlines(keepends=True)
        stream = {"name": "stdout", "output_type": "stream", "text": text}
        cell |= {"execution_count": number, "outputs": [stream] if text else []}
    part = NOTEBOOK.with_suffix(".part")
    part.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", "utf-8")
    os.replace(part, NOTEBOOK)


if __name__ == "__main__":
    main()
