"""Predictions on disk: the digits that are written, and files that were torn, taken or left by several processes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluation.headers import HEADER, PLAN
from tsmzoo.errors import DataError
from tsmzoo.evaluation import predictions
from tsmzoo.evaluation.predictions import Store, VideoLogits
from tsmzoo.evaluation.protocol import Changes

#: Ten videos: chunks of three, the last one of a single video.
NAMES = [[f"{number}.mp4" for number in range(start, min(start + 3, 10))] for start in range(0, 10, 3)]


def chunk(number: int) -> list[VideoLogits]:
    """Return the predictions of a chunk, those of every fourth video skipped."""
    return [
        VideoLogits(name, index % 2, [], skipped="broken")
        if index % 4 == 3
        else VideoLogits(name, index % 2, [[index, -0.5]])
        for name, index in ((name, int(name[:-4])) for name in NAMES[number])
    ]


def lines(*numbers: int) -> bytes:
    return b"".join(msgspec.json.encode(each) + b"\n" for number in numbers for each in chunk(number))


WHOLE = lines(*range(len(NAMES)))


def opened(path: Path, rank: int = 0, count: int = 1, **changes: Any) -> Store:
    return Store(path, msgspec.structs.replace(HEADER, **changes), NAMES, rank, count)


def begun(path: Path, **parts: bytes) -> Path:
    """Write what a run left: the header, and the content of the file (`own`) and of its parts (`_0`, `_1` …)."""
    opened(path)
    for name, content in parts.items():
        (path if name == "own" else path.with_name(f"{path.name}.{name[1:]}")).write_bytes(content)
    return path


def ends(path: Path, *, count: int = 1) -> None:
    """Let all processes of a run go on to the end; what they leave must be the whole file and nothing else."""
    stores = [opened(path, rank, count) for rank in range(count)]
    for rank, store in enumerate(stores):
        for number in range(rank, len(NAMES), count):
            if number not in store.done:
                store.append(chunk(number))
    stores[0].finish()
    assert path.read_bytes() == WHOLE
    assert sorted(each.name for each in path.parent.iterdir()) == [path.with_suffix(".json").name, path.name]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new folder" / "p.jsonl"


# --- digits --------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=9))
@settings(deadline=None)
def test_numbers_are_the_shortest_that_read_back_the_same(numbers: list[float]) -> None:
    values = np.array([numbers], np.float32)
    text = msgspec.json.encode(predictions.rows(values))
    again = np.array(msgspec.json.decode(text), np.float32)
    assert again.tobytes() == values.tobytes(), "to the bit, the sign of zero among them"
    for value, said in zip(values[0], text.decode().strip("[]").split(","), strict=True):
        digits = len(said.lstrip("-").partition("e")[0].replace(".", "").strip("0"))
        if digits > 1:
            assert np.float32(f"{value:.{digits - 2}e}") != value, "one digit fewer says another number"


def test_a_line_is_as_the_contract_says() -> None:
    row = np.array([[0.1, -2.5], [1e-7, 3]], np.float32)
    line = msgspec.json.encode(VideoLogits("a b.mp4", 1, predictions.rows(row)))
    assert line == b'{"video":"a b.mp4","label":1,"logits":[[0.1,-2.5],[1e-7,3.0]]}'


@pytest.mark.parametrize("average", ["logits", "probabilities"])
def test_scores_are_the_mean_of_what_the_protocol_averages(average: Any) -> None:
    logits = [[1.0, 3.0, -2.0], [700.0, 699.0, -700.0]]
    odds = [[np.exp(1.0), np.exp(3.0), np.exp(-2.0)], [1, np.exp(-1.0), 0]]
    wanted = {
        "logits": [350.5, 351.0, -351.0],
        "probabilities": np.mean([np.divide(row, np.sum(row)) for row in odds], axis=0),
    }
    found = predictions.scores(logits, msgspec.structs.replace(PLAN, average=average))
    assert found == pytest.approx(wanted[average])


# --- one process ---------------------------------------------------------------------------------------------------


def test_a_run_leaves_its_lines_and_its_header(path: Path) -> None:
    ends(path)
    assert predictions.read_header(path) == HEADER
    assert list(predictions.read(path)) == [each for number in range(len(NAMES)) for each in chunk(number)]


@pytest.mark.parametrize(
    ("left", "kept"),
    [
        (b"", set()),
        (lines(0)[:-1], set()),
        (lines(0), {0}),
        (lines(0, 1)[:-20], {0}),
        (lines(0) + lines(1).splitlines(keepends=True)[0], {0}),
        (lines(0, 1) + b"\0\0\0\0", {0, 1}),
        (lines(0, 1) + b'{"video":"nobody.mp4","label":0,"logits":[]}\n', {0, 1}),
        (lines(0, 1) + lines(2).splitlines(keepends=True)[1], {0, 1}),
        (WHOLE, {0, 1, 2, 3}),
    ],
    ids=["nothing", "no line end", "whole", "torn line", "torn chunk", "zeros", "foreign", "mid chunk", "all"],
)
def test_what_was_torn_is_predicted_again(path: Path, left: bytes, kept: set[int]) -> None:
    store = opened(begun(path, own=left))
    assert store.done == kept
    assert path.read_bytes() == lines(*kept)
    ends(path)


@given(cut=st.integers(0, len(WHOLE)))
@settings(deadline=None, max_examples=60)
def test_wherever_a_run_was_cut_it_ends_the_same(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    ends(begun(tmp_path_factory.mktemp("cut") / "p.jsonl", own=WHOLE[:cut]))


def test_a_file_in_the_way_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("mine\n")
    with pytest.raises(DataError, match="is in the way and nothing says of what"):
        opened(path)
    assert path.read_text() == "mine\n"
    assert [each.name for each in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("content", ["", "{}", '{"a": [1]}', "no JSON"])
def test_a_header_in_the_way_is_left_alone(path: Path, content: str) -> None:
    """`results.jsonl` writes `results.json`, too, which somebody may have."""
    path.parent.mkdir()
    path.with_suffix(".json").write_text(content)
    with pytest.raises(DataError, match=r"p\.json: .*give another file"):
        opened(path)
    assert path.with_suffix(".json").read_text() == content


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "other"},
        {"weights_sha256": "3" * 64},
        {"seed": 1},
        {"plan": msgspec.structs.replace(PLAN, clips=2, changes=Changes(clips=2))},
        {"observe": (50,)},
        {"list_sha256": "4" * 64},
        {"videos_sha256": "4" * 64},
        {"classes": ("x",)},
        {"decoder": "another"},
        {"runtime": "another"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_predictions_of_another_run_are_refused_by_what_differs(path: Path, changes: dict[str, Any]) -> None:
    begun(path, own=lines(0))
    (key,) = changes
    with pytest.raises(DataError) as caught:
        opened(path, **changes)
    said = {"plan": "plan.clips was 1, now is 2", "classes": "of other classes"}.get(key, f"{key} was ")
    assert f"holds predictions of another run ({said}" in str(caught.value)
    assert "give another file" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == lines(0)


def test_predictions_begun_by_another_version_are_continued(path: Path) -> None:
    begun(path, own=lines(0))
    beside = path.with_suffix(".json")
    older = json.loads(beside.read_bytes()) | {"tsmzoo": "0.0.1"}
    beside.write_text(json.dumps(older), encoding="utf-8")
    assert opened(path).done == {0}


def test_pictures_that_were_read_otherwise_are_not_gone_on_with(path: Path) -> None:
    begun(path, own=lines(0))
    beside = path.with_suffix(".json")
    older = json.loads(beside.read_bytes())
    del older["reading"]
    beside.write_text(json.dumps(older))
    assert opened(path, reading=1).done == {0}, "headers of before lack it"
    with pytest.raises(DataError, match="reads pictures otherwise; predict again") as caught:
        opened(path, reading=predictions.READING)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == lines(0)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"p\.jsonl: cannot be written"):
        opened(tmp_path / "file" / "p.jsonl")


# --- several processes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 7])
def test_files_of_several_processes_become_one_in_the_order_of_the_list(path: Path, count: int) -> None:
    path.parent.mkdir()
    ends(path, count=count)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize(
    "left",
    [
        {"own": lines(0, 1)},
        {"own": lines(0)[:-9]},
        {"_0": lines(0, 2), "_1": lines(1)},
        {"_0": lines(0)[:-5], "_1": lines(1, 3)},
        {"own": lines(2), "_0": lines(0), "_2": lines(3, 1)[:-1]},
        {"_1": WHOLE},
        {"own": lines(0, 1), "_0": lines(1, 0)},
        {f"_{rank}": lines(rank) for rank in range(4)} | {"_10": lines(3)},
    ],
    ids=["one", "one torn", "two", "two torn", "mixed", "all in one", "twice", "many"],
)
def test_a_run_goes_on_with_another_number_of_processes(path: Path, left: dict[str, bytes], count: int) -> None:
    ends(begun(path, **left), count=count)


def test_a_process_writes_no_file_but_its_own(path: Path) -> None:
    begun(path, own=lines(0)[:-9], _0=lines(0)[:-9], _1=lines(1)[:-9])
    store = opened(path, 1, 2)
    store.append(chunk(1))
    assert path.with_name("p.jsonl.1").read_bytes() == lines(1)
    assert path.with_name("p.jsonl.0").read_bytes() == path.read_bytes() == lines(0)[:-9]


def test_other_files_beside_it_are_not_read(path: Path) -> None:
    begun(path)
    for name in ("p.jsonl.bak", "p.jsonl.1.bak", "q.jsonl.1", "p.jsonl.merged"):
        path.with_name(name).write_bytes(WHOLE)
    assert opened(path).done == set()


def test_a_run_that_lacks_videos_is_not_complete(path: Path) -> None:
    store = opened(path, 0, 2)
    for number in (0, 2):
        store.append(chunk(number))
    for number in (1, 3):
        with pytest.raises(DataError, match="lacks videos of other processes"):
            store.finish()
        opened(path, 1, 2).append(chunk(number))
    store.finish()
    assert path.read_bytes() == WHOLE


def test_parts_of_a_run_that_nothing_tells_of_are_refused(path: Path) -> None:
    begun(path, _1=lines(1))
    path.with_suffix(".json").unlink()
    with pytest.raises(DataError, match=r"p\.jsonl\.1: is in the way and nothing says of what"):
        opened(path)


def test_two_runs_do_not_write_one_file(path: Path) -> None:
    with predictions.exclusive(path, 0):
        with predictions.exclusive(path, 1):
            pass  # another process of the same run
        with pytest.raises(DataError, match="another run writes it"), predictions.exclusive(path, 0):
            pass
    with predictions.exclusive(path, 0):
        pass


def test_what_fails_within_the_block_is_not_the_files_fault(path: Path) -> None:
    with pytest.raises(PermissionError, match="of a video"), predictions.exclusive(path, 0):
        raise PermissionError(13, "of a video")
    with predictions.exclusive(path, 0):
        pass  # nobody holds it any more


def test_a_finished_file_is_not_written_anew(path: Path) -> None:
    ends(path)
    before = path.stat()
    opened(path).finish()
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_line_is_found_without_reading_the_others(path: Path) -> None:
    ends(path)
    index = predictions.Index(path, HEADER)
    assert len(index) == 10
    assert [index.get(each.video) for each in chunk(2)] == chunk(2)
    assert index.get("none.mp4") is None


# --- reading -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [b"{}", b"no JSON", b'{"video":"a","label":"x","logits":[]}', lines(1)[:9], b""])
def test_a_line_that_is_no_prediction_is_named(path: Path, bad: bytes) -> None:
    begun(path, own=chunk_lines(2) + bad + b"\n")
    with pytest.raises(DataError, match="line 3 is no prediction"):
        list(predictions.read(path))


def chunk_lines(count: int) -> bytes:
    return b"".join(WHOLE.splitlines(keepends=True)[:count])


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.jsonl: cannot be read \(No such file"):
        list(predictions.read(tmp_path / "none.jsonl"))
    with pytest.raises(DataError, match=r"none\.json: says what none\.jsonl holds and cannot be read"):
        predictions.read_header(tmp_path / "none.jsonl")


def test_the_header_is_for_people_too(path: Path) -> None:
    begun(path)
    written: Sequence[str] = path.with_suffix(".json").read_text().splitlines()
    assert len(written) > len(HEADER.__struct_fields__)
    assert json.loads("".join(written))["plan"]["protocol"] == "p"
