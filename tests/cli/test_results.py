"""The page of JSON results names what the commands print."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_page_is_current() -> None:
    """`make docs` writes it anew."""
    spec = importlib.util.spec_from_file_location("results", DOCS / "results.py")
    assert spec is not None
    assert spec.loader is not None
    results = sys.modules["results"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(results)
    assert f"]]] -->\n{results.page()}\n<!-- [[[end" in (DOCS / "results.md").read_text(encoding="utf-8")
