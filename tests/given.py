"""Helpers of a conftest as fixtures."""

from __future__ import annotations

from typing import Any

import pytest


def give(helper: Any) -> Any:
    """Return a fixture that gives a function or a class: with importlib mode tests import none of a conftest."""
    return pytest.fixture(scope="session", name=helper.__name__)(lambda: helper)
