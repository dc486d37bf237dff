"""What a shell completes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("exp", {"export"}),
        ("info tsm_mbv2_onl", {"tsm_mbv2_online"}),
        ("flops --siz", {"--size"}),
        ("cache ver", {"verify"}),
        ("registry ch", {"check"}),
    ],
)
def test_completion(words: str, expected: set[str]) -> None:
    environment = {"_TSMZOO_COMPLETE": "complete_bash", "COMP_WORDS": f"tsmzoo {words}"}
    environment["COMP_CWORD"] = str(len(words.split()))
    command = [sys.executable, "-m", "tsmzoo"]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert set(done.stdout.split()) == expected
