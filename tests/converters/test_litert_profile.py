"""LiteRT's profile: its summary read, and what there is where it tells of nothing. Files with one: test_sessions.py."""

from __future__ import annotations

import ctypes.util
import re
from pathlib import Path

import pytest

litert_profile = pytest.importorskip("tsmzoo.converters.tflite.profile", exc_type=ImportError)

#: In the form of LiteRT 2.3, of twenty passes; the line of GEMMs stands for two of the same number in two parts.
SUMMARY = """\
===================================================================== Run Order ======================================================================
                                                 [node type]    [start]    [first]   [avg ms]        [%]     [cdf%]   [mem KB] [times called]   [Name]
                                       Delegate/Convert (NC)      0.000      0.041      0.000     0.125%     0.125%      0.000             20   [Delegate]:0
                                Delegate/Static Reshape (NC)      0.000      0.000      0.000     0.000%     0.125%      0.000             20   [Delegate]:1
                     Delegate/Fully Connected (NC, F32) GEMM      0.000      0.010      0.009    90.000%    90.125%      0.000             40   [Delegate]:2
                                                      CUMSUM      0.000      0.002      0.002     9.875%   100.000%      0.000             20   [Builtin]:3

============================================================== Top by Computation Time ===============================================================
                                                 [node type]    [start]    [first]   [avg ms]        [%]     [cdf%]   [mem KB] [times called]   [Name]
                     Delegate/Fully Connected (NC, F32) GEMM      0.000      0.010      0.009    90.000%    90.000%      0.000             40   [Delegate]:2

Number of nodes executed: 4

Timings (microseconds): count=4 curr=400
Memory (bytes): count=0
4 nodes observed
"""  # noqa: E501 - as it is


def test_nodes_are_those_of_the_first_table() -> None:
    """And their times are shares of the 400 us of all: half a microsecond is no longer nothing."""
    nodes = litert_profile.parse(SUMMARY)
    assert [(node.kind, node.name, node.calls) for node in nodes] == [
        ("Convert (NC)", "#0", 20),
        ("Static Reshape (NC)", "#1", 20),
        ("Fully Connected (NC, F32) GEMM", "#2", 40),
        ("CUMSUM", "#3", 20),
    ]
    assert [node.ms for node in nodes] == pytest.approx([0.0005, 0, 0.36, 0.0395])


@pytest.mark.parametrize("none", ["-nan%", "nan%"])
def test_shares_of_nothing_are_no_numbers(none: str) -> None:
    """So LiteRT writes them where all that ran was shorter than a microsecond."""
    text = re.sub(r"[0-9.]+%", none, SUMMARY).replace("curr=400", "curr=0")
    assert [node.ms for node in litert_profile.parse(text)] == [0.0] * 4


def test_names_are_as_wide_as_the_last() -> None:
    line = (
        "                 ADD      0.000      0.000      0.021     6.073%   100.000%      0.000     1   [Builtin]:3\n"
    )
    table = f"=== Run Order ===\n [node type]\n{line * 11}\nTimings (microseconds): count=1 curr=231\n"
    names = [node.name for node in litert_profile.parse(table)]
    assert (names[0], names[-1]) == ("#00", "#10")


@pytest.mark.parametrize(
    "text",
    [
        "",
        SUMMARY.replace("Run Order", "Order"),
        SUMMARY.replace("0.002     9.875%", "9.875%"),  # a column less in one line
        SUMMARY.replace("curr=400", "none"),
        "=== Run Order ===\n [node type]\n\n",
    ],
    ids=["nothing", "no such table", "a column less", "no sum", "no nodes"],
)
def test_another_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no table"):
        litert_profile.parse(text)


def test_none_where_there_is_no_such_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    another, broken = ctypes.util.find_library("c"), tmp_path / "libLiteRt.so"
    broken.write_bytes(b"no library")
    assert another is not None
    for library in (tmp_path / "none.so", broken, Path(another)):
        monkeypatch.setattr(litert_profile, "library", lambda library=library: library)
        assert litert_profile.profile(tmp_path / "m.tflite", 1, 1) is None


def test_none_where_litert_refuses(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ai_edge_litert")
    path = tmp_path / "m.tflite"
    path.write_bytes(b"no graph")
    assert litert_profile.profile(path, 1, 1) is None
    capfd.readouterr()  # it logs why
