"""`eval` of saved predictions: a line that cannot be of the run that its header tells of is named, not scored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from typer.testing import CliRunner

from tests.evaluation import headers
from tsmzoo.cli import app
from tsmzoo.evaluation.predictions import Store
from tsmzoo.evaluation.protocol import EvaluationPlan

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Of two views.
PLAN = EvaluationPlan("mit_sth_center_1clip", "mit", "uniform", 2, 8, 8, 1, 73, 64, "logits")
HEADER = msgspec.structs.replace(
    headers.HEADER, model="tsm_mbv2_motion", plan=PLAN, observe=(50,), videos=3, classes=("x", "y", "z")
)
VIEWS = [[0.5, 1.5, -1.0], [2.0, 0.25, 1.0]]
LARGEST = 3.4028235e38


def line(video: int, **changes: Any) -> dict[str, Any]:
    return {"video": f"{video}.mp4", "label": video, "logits": VIEWS, "observed": {"50": VIEWS}} | changes


def saved(path: Path, lines: Sequence[dict[str, Any]], **changes: Any) -> Path:
    header = msgspec.structs.replace(HEADER, **changes)
    path.with_suffix(".json").write_bytes(msgspec.json.encode(header))
    path.write_text("".join(json.dumps(each) + "\n" for each in lines))
    return path


def evaluated(*paths: Path) -> tuple[int, dict[str, Any] | str]:
    result = CliRunner().invoke(app, ["eval", *map(str, paths), "--json"])
    if result.exit_code == 0:
        return 0, json.loads(result.stdout)
    assert isinstance(result.exception, SystemExit), f"a traceback: {result.exception!r}"
    assert result.stdout == ""
    (error,) = result.stderr.splitlines()
    return result.exit_code, error


def test_good_lines_are_scored(tmp_path: Path) -> None:
    code, document = evaluated(saved(tmp_path / "p.jsonl", [line(0), line(1), line(2)]))
    assert code == 0
    assert isinstance(document, dict)
    assert document["top1"] == pytest.approx(33.33)


def test_the_largest_number_that_is_written_is_read(tmp_path: Path) -> None:
    large = [[LARGEST, -LARGEST, 0.0]] * 2
    lines = [line(0, logits=large), line(1, label=0), {"video": "2.mp4", "label": 2, "logits": [], "skipped": "torn"}]
    code, document = evaluated(saved(tmp_path / "p.jsonl", lines))
    assert code == 0
    assert isinstance(document, dict)
    assert (document["top1"], document["skipped"]) == (100.0, 1)


#: What a line says, and what is said of it.
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no view": ({"logits": []}, "logits of 0 views, not of 2"),
    "too few views": ({"logits": VIEWS[:1]}, "logits of 1 views, not of 2"),
    "too many views": ({"logits": VIEWS * 2}, "logits of 4 views, not of 2"),
    "empty rows": ({"logits": [[], []]}, "0 logits of 3 classes"),
    "ragged rows": ({"logits": [VIEWS[0], VIEWS[1][:2]]}, "2 logits of 3 classes"),
    "short rows": ({"logits": [row[:2] for row in VIEWS]}, "2 logits of 3 classes"),
    "long rows": ({"logits": [[*row, 9.0] for row in VIEWS]}, "4 logits of 3 classes"),
    "beyond float32": ({"logits": [VIEWS[0], [1e39, 0.0, 0.0]]}, "a logit beyond float32"),
    "beyond all": ({"logits": [VIEWS[0], [10**400, 0.0, 0.0]]}, "is no prediction"),
    "a class beyond": ({"label": 3}, "class 3 of 3"),
    "a class far beyond": ({"label": 2**63}, f"class {2**63} of 3"),
    "a negative class": ({"label": -1}, "class -1 of 3"),
    "a skipped one's class": ({"label": 3, "logits": [], "skipped": "torn"}, "class 3 of 3"),
    "nothing observed": ({"observed": {}}, "nothing after 50 % of the video"),
    "another level": ({"observed": {"5": VIEWS}}, "nothing after 50 % of the video"),
    "observed short": ({"observed": {"50": [row[:2] for row in VIEWS]}}, "2 logits of 3 classes"),
    "observed less": ({"observed": {"50": VIEWS[:1]}}, "logits of 1 views, not of 2"),
    "observed beyond": ({"observed": {"50": [VIEWS[0], [-1e300, 0.0, 0.0]]}}, "a logit beyond float32"),
}


@pytest.mark.parametrize(("name", "place"), [(name, number % 2) for number, name in enumerate(BAD)])
def test_a_line_that_cannot_be_is_named(name: str, place: int, tmp_path: Path) -> None:
    changes, said = BAD[name]
    lines = [line(0), line(1), line(2)]
    paths = [saved(tmp_path / "first.jsonl", lines), saved(tmp_path / "second.jsonl", lines)]
    saved(paths[place], [line(0), line(1, **changes), line(2)])
    for given in ([paths[place]], paths):
        code, error = evaluated(*given)
        assert isinstance(error, str), error
        assert code == 1
        if given == paths and place == 1 and "label" in changes:
            assert error.startswith(f"error: {paths[1]}: ")
            continue
        assert error.startswith(f"error: {paths[place]}: line 2 is no prediction (")
        assert said in error
        assert error.endswith("; predict again")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"logits": [row[:2] for row in VIEWS]}, "2 logits of 3 classes"),
        ({"label": 3}, "class 3 of 3"),
        ({"label": -1}, "class -1 of 3"),
    ],
)
def test_without_names_the_first_line_tells_the_classes(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "p.jsonl", [line(0), line(1), line(2, **changes)], classes=None)
    code, error = evaluated(path)
    assert (code, str(error).removeprefix(f"error: {path}: ")) == (
        1,
        f"line 3 is no prediction ({said}); predict again",
    )


@pytest.mark.parametrize("empty", [[[], []], []])
def test_without_names_there_must_be_classes(empty: list[list[float]], tmp_path: Path) -> None:
    path = saved(tmp_path / "p.jsonl", [line(n, logits=empty, observed={"50": empty}) for n in range(3)], classes=None)
    assert evaluated(path) == (1, f"error: {path}: line 1 is no prediction (no logits); predict again")


def test_files_of_other_widths_do_not_add_up(tmp_path: Path) -> None:
    wide = [[*row, 0.0] for row in VIEWS]
    first = saved(tmp_path / "p.jsonl", [line(n) for n in range(3)], classes=None)
    second = saved(tmp_path / "q.jsonl", [line(n, logits=wide, observed={"50": wide}) for n in range(3)], classes=None)
    said = f"error: {second}: has 4 logits of 0.mp4, {first} has 3; predict again"
    assert evaluated(first, second) == (1, said)


def test_a_video_that_a_second_file_has_twice_is_named(tmp_path: Path) -> None:
    lines = [line(n) for n in range(3)]
    first, second = saved(tmp_path / "p.jsonl", lines), saved(tmp_path / "q.jsonl", [*lines, lines[0]])
    assert evaluated(first, second) == (1, f"error: {second}: has 0.mp4 twice; predict again")


@pytest.mark.parametrize("name", BAD)
def test_a_run_that_goes_on_predicts_such_a_line_again(name: str, tmp_path: Path) -> None:
    lines = [line(0), line(1, **BAD[name][0]), line(2)]
    path = saved(tmp_path / "p.jsonl", lines)
    kept = path.read_bytes().splitlines(keepends=True)[0]
    store = Store(path, HEADER, [["0.mp4"], ["1.mp4"], ["2.mp4"]], 0, 1)
    assert store.done == {0}
    assert path.read_bytes() == kept
