"""LiteRT's profile: its summary read, and what there is where it tells of nothing. Files with one: test_bench.py."""

from __future__ import annotations

import ctypes.util
from pathlib import Path

import pytest

from tsmzoo import litert_profile
from tsmzoo.litert_profile import Node

#: As LiteRT 2.3 wrote it of twenty passes; the line of the convolutions stands for two of the same number in two parts.
SUMMARY = """\
===================================================================== Run Order ======================================================================
                                                 [node type]    [start]    [first]   [avg ms]        [%]     [cdf%]   [mem KB] [times called]   [Name]
                                       Delegate/Convert (NC)      0.000      0.041      0.029     0.652%     0.652%      0.000             20   [Delegate]:0
                                Delegate/Static Reshape (NC)      0.000      0.000      0.000     0.000%     0.652%      0.000             20   [Delegate]:1
                     Delegate/Fully Connected (NC, F32) GEMM      0.000     10.123     12.146    93.275%    93.927%      0.000             40   [Delegate]:2
                                                      CUMSUM      0.000      0.021      0.021     6.073%   100.000%      0.000             20   [Builtin]:3

============================================================== Top by Computation Time ===============================================================
                                                 [node type]    [start]    [first]   [avg ms]        [%]     [cdf%]   [mem KB] [times called]   [Name]
                     Delegate/Fully Connected (NC, F32) GEMM      0.000     10.123     12.146    93.275%    93.927%      0.000             40   [Delegate]:2

Number of nodes executed: 4

Timings (microseconds): count=4 curr=486820
"""  # noqa: E501 - as it is


def test_nodes_are_those_of_the_first_table() -> None:
    assert litert_profile.parse(SUMMARY) == [
        Node("Convert (NC)", "#0", 0.029, 20),
        Node("Static Reshape (NC)", "#1", 0.0, 20),
        Node("Fully Connected (NC, F32) GEMM", "#2", 12.146, 40),
        Node("CUMSUM", "#3", 0.021, 20),
    ]


def test_shares_of_nothing_are_no_numbers() -> None:
    """So LiteRT writes them where all that ran was shorter than a microsecond."""
    text = SUMMARY.replace("0.652%", "-nan%").replace("93.275%", "nan%")
    assert litert_profile.parse(text) == litert_profile.parse(SUMMARY)


def test_names_are_as_wide_as_the_last() -> None:
    line = (
        "                 ADD      0.000      0.000      0.021     6.073%   100.000%      0.000     1   [Builtin]:3\n"
    )
    table = f"=== Run Order ===\n [node type]\n{line * 11}\n=== Top ===\n"
    names = [node.name for node in litert_profile.parse(table)]
    assert (names[0], names[-1]) == ("#00", "#10")


@pytest.mark.parametrize(
    "text",
    [
        "",
        SUMMARY.replace("Run Order", "Order"),
        SUMMARY.replace("0.021     6.073%", "6.073%"),  # a column less in one line
        "=== Run Order ===\n [node type]\n\n",
    ],
    ids=["nothing", "no such table", "a column less", "no nodes"],
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
