"""A file and its contract change as one: wherever an export fails or ends, the older pair opens, or the new one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.artifact.contracts import toy_contract
from tsmzoo.artifact import store
from tsmzoo.cli import app
from tsmzoo.errors import ArtifactError
from tsmzoo.system import files

ENDINGS = {"onnx": ".onnx", "tflite": ".tflite", "coreml": ".mlpackage"}


def export(path: Path, content: str) -> None:
    """Put a file and its contract in place as `tsmzoo export` does, without a conversion."""
    with files.beside(path) as folder:
        folder.mkdir()
        made = folder / path.name
        if path.suffix == ".mlpackage":
            (made / "Data").mkdir(parents=True)
            (made / "Data" / "weights").write_text(content)
            (made / "Manifest.json").write_text(content)
        else:
            made.write_text(content)
        format_ = next(format_ for format_, ending in ENDINGS.items() if ending == path.suffix)
        sha256, size = store.digest(made)
        store.put(made, toy_contract(format=format_, artifact=path.name, sha256=sha256, bytes=size), path)


def holds(path: Path) -> str | None:
    """Return the content of a file that opens with its contract; None where no file is."""
    if not path.exists() and not (path.parent / f".{path.name}.old").exists():
        return None
    assert store.opened(path).format == next(name for name, ending in ENDINGS.items() if ending == path.suffix)
    return (path / "Manifest.json" if path.suffix == ".mlpackage" else path).read_text()


def listing(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# --- what lies there before ---------------------------------------------------------------------------------------


def nothing(_: Path, _other: Path) -> None:
    pass


def older(path: Path, _: Path) -> None:
    export(path, "older")


def other(_: Path, other: Path) -> None:
    export(other, "other")


def older_then_other(path: Path, other: Path) -> None:
    export(path, "older")
    export(other, "other")


def other_then_older(path: Path, other: Path) -> None:
    export(other, "other")
    export(path, "older")


BEFORE = [nothing, older, other, older_then_other, other_then_older]


@pytest.mark.parametrize("how", ["fail", "end"])
@pytest.mark.parametrize("before", BEFORE, ids=lambda make: make.__name__)
@pytest.mark.parametrize(("ending", "exchanges"), [(".onnx", True), (".mlpackage", True), (".mlpackage", False)])
def test_any_call_may_fail_or_be_the_last(
    ending: str, exchanges: bool, before: Callable[[Path, Path], None], how: str, disk: Any, tmp_path: Path
) -> None:
    disk.exchanges = exchanges
    number, seen = 0, set()
    while True:
        folder = tmp_path / str(number)
        folder.mkdir()
        path, neighbour = folder / f"m{ending}", folder / "m.tflite"
        before(path, neighbour)
        was, beside = holds(path), holds(neighbour)
        reached = True
        try:
            reached = disk.run(lambda at=path: export(at, "new"), **{how: number})
        except OSError:
            assert how == "fail"
            assert not [name for name in listing(folder) if name.startswith(".")]
        now = holds(path)
        assert now in (was, "new")
        assert holds(neighbour) == beside
        seen.add(now)
        # The next export, which succeeds, sweeps away what is left.
        export(path, "next")
        assert (holds(path), holds(neighbour)) == ("next", beside)
        contracts = {"m.json"} | ({f"{neighbour.name}.json"} if beside else set())
        assert listing(folder) == contracts | {path.name} | ({neighbour.name} if beside else set())
        if not reached:
            break
        number += 1
    assert number > 10
    assert seen == {was, "new"}


def test_a_file_that_gets_its_name_as_the_last_thing_opens_with_the_contract_that_waits(
    disk: Any, tmp_path: Path
) -> None:
    """The older contract is still in NAME.json; the digest says which is the file's."""
    path = tmp_path / "m.onnx"
    export(path, "older")
    for number in range(100):
        disk.run(lambda: export(path, "new"), end=number)
        if path.read_text() == "new":
            break
    assert store.read_contract(path).sha256 == store.opened(path).sha256 == store.digest(path)[0]
    assert (tmp_path / "m.onnx.json").exists()
    # Another format takes its place beside it, and the contract that is in use is kept.
    export(tmp_path / "m.tflite", "other")
    assert (holds(path), holds(tmp_path / "m.tflite")) == ("new", "other")
    export(path, "next")
    assert listing(tmp_path) == {"m.onnx", "m.json", "m.tflite", "m.tflite.json"}


@pytest.mark.slow
def test_exports_of_one_name_at_once_keep_each_others_contracts(tmp_path: Path) -> None:
    """`--to onnx` and `--to tflite` in the same precision have the same NAME unless told otherwise."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; import test_pairs\n"
        "for number in range(40): test_pairs.export(Path(sys.argv[2]), str(number))"
    )
    here = str(Path(__file__).parent)
    paths = [tmp_path / f"m{ending}" for ending in ENDINGS.values()]
    running = [subprocess.Popen([sys.executable, "-c", script, here, str(path)]) for path in paths]
    assert [process.wait() for process in running] == [0, 0, 0]
    assert [holds(path) for path in paths] == ["39", "39", "39"]
    assert not [name for name in listing(tmp_path) if name.startswith(".")]


# --- contracts in the way ---------------------------------------------------------------------------------------------


def test_a_pair_that_was_renamed_keeps_its_contract(tmp_path: Path) -> None:
    """What a contract says that its file is called does not count: who reads it does."""
    export(tmp_path / "a.onnx", "older")
    (tmp_path / "a.onnx").rename(tmp_path / "m.onnx")
    (tmp_path / "a.json").rename(tmp_path / "m.json")
    export(tmp_path / "m.tflite", "other")
    assert (holds(tmp_path / "m.onnx"), holds(tmp_path / "m.tflite")) == ("older", "other")


@pytest.mark.parametrize("order", [("m.onnx.tflite", "m.onnx"), ("m.onnx.tflite", "m.tflite", "m.onnx")])
def test_names_that_end_twice_share_no_contract(order: tuple[str, ...], tmp_path: Path) -> None:
    """`m.onnx.json` is the contract of `m.onnx.tflite`, and the place where that of `m.onnx` waits."""
    for name in order:
        export(tmp_path / name, name)
        assert [holds(tmp_path / each) for each in order if (tmp_path / each).exists()] == [
            each for each in order if (tmp_path / each).exists()
        ]


def test_a_contract_with_no_other_place_is_not_overwritten(tmp_path: Path) -> None:
    export(tmp_path / "m.onnx", "older")
    export(tmp_path / "m.tflite", "other")  # that of m.onnx is in m.onnx.json now
    with pytest.raises(ArtifactError, match=r"m\.onnx\.json: is the contract of m\.onnx; choose another name"):
        store.check_way(tmp_path / "m.onnx.tflite")
    assert (holds(tmp_path / "m.onnx"), holds(tmp_path / "m.tflite")) == ("older", "other")


@pytest.mark.parametrize("name", ["m.json", "m.onnx.json"])
@pytest.mark.parametrize("what", ["a file", "a folder", "a pipe"])
def test_what_is_no_contract_is_in_the_way(what: str, name: str, tmp_path: Path) -> None:
    place = tmp_path / name
    {"a file": lambda: place.write_text("{}"), "a folder": place.mkdir, "a pipe": lambda: os.mkfifo(place)}[what]()
    with pytest.raises(ArtifactError, match="is in the way and no contract of this version"):
        export(tmp_path / "m.onnx", "new")
    assert listing(tmp_path) == {name}


def test_a_link_is_replaced_and_what_it_points_to_stays(tmp_path: Path) -> None:
    for ending in ENDINGS.values():
        real, link = tmp_path / f"real{ending}", tmp_path / f"link{ending}"
        export(real, "older")
        link.symlink_to(real.name)
        export(link, "new")
        assert (holds(real), holds(link), link.is_symlink()) == ("older", "new", False)
    assert not [name for name in listing(tmp_path) if name.startswith(".")]


def test_a_process_that_was_killed_leaves_nothing_that_the_next_does_not_sweep(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from tsmzoo.system import files\n"
        "with files.beside(Path(sys.argv[1])) as folder:\n"
        "    folder.mkdir(); (folder / 'float.onnx').write_text('half'); os.kill(os.getpid(), 9)"
    )
    path = tmp_path / ("ä" * 120 + ".onnx")  # a name may have 255 bytes
    subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert len(listing(tmp_path)) == 1
    export(path, "new")
    assert listing(tmp_path) == {path.name, f"{path.stem}.json"}


def test_a_package_that_a_killed_process_moved_aside_is_given_back_by_the_next_export(tmp_path: Path) -> None:
    """Within the block that keeps other processes out; in a process of its own, which would wait for itself."""
    export(tmp_path / "m.mlpackage", "older")
    (tmp_path / "m.mlpackage").rename(tmp_path / ".m.mlpackage.old")
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; import test_pairs\n"
        "test_pairs.export(Path(sys.argv[2]), 'new')"
    )
    words = [sys.executable, "-c", script, str(Path(__file__).parent), str(tmp_path / "m.onnx")]
    subprocess.run(words, check=True, timeout=60)
    assert (holds(tmp_path / "m.mlpackage"), holds(tmp_path / "m.onnx")) == ("older", "new")
    assert not [name for name in listing(tmp_path) if name.startswith(".")]


def test_a_folder_that_another_process_keeps_is_waited_for_so_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = (
        "import sys; from pathlib import Path; from tsmzoo.system import files\n"
        "with files.exclusive(Path(sys.argv[1])): print('in', flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        monkeypatch.setattr(files, "_PATIENCE", 0.1)
        with pytest.raises(TimeoutError, match="another process keeps it"):
            export(tmp_path / "m.onnx", "new")
        assert listing(tmp_path) == set()
        process.communicate()
    export(tmp_path / "m.onnx", "new")
    assert holds(tmp_path / "m.onnx") == "new"


@pytest.mark.parametrize("text", ['["one", "two"]', "{", '{"schema": 99}', "\xff"])
@pytest.mark.parametrize("name", ["m.json", "m.onnx.json"])
def test_another_file_in_one_of_both_places_does_not_hide_the_contract(name: str, text: str, tmp_path: Path) -> None:
    export(tmp_path / "m.onnx", "mine")
    if name == "m.json":
        (tmp_path / "m.json").rename(tmp_path / "m.onnx.json")
    (tmp_path / name).write_text(text, encoding="latin-1")
    assert holds(tmp_path / "m.onnx") == "mine"
    for place in ("m.json", "m.onnx.json"):
        (tmp_path / place).write_text(text, encoding="latin-1")
    with pytest.raises(ArtifactError, match=r"m\.json: is no contract of this version"):
        store.opened(tmp_path / "m.onnx")


# --- real conversions ---------------------------------------------------------------------------------------------

#: Before each call that renames something in a folder, copies the folder: what a process that is killed there leaves.
#: Exchanging two folders counts as such.
SNAPSHOTS = """
import os, shutil, sys
folder, copies, number, copying = sys.argv.pop(1), sys.argv.pop(1), 0, False
def audit(event, arguments):
    global number, copying
    exchanged = event == "ctypes.dlsym" and arguments[1] == "renameat2"
    if not copying and (exchanged or event == "os.rename" and folder in os.fsdecode(arguments[0])):
        copying = True
        shutil.copytree(folder, os.path.join(copies, str(number)), symlinks=True)
        number, copying = number + 1, False
sys.addaudithook(audit)
from tsmzoo.cli import main
main()
"""


def answered(*words: Any) -> None:
    result = CliRunner().invoke(app, list(map(str, words)))
    assert result.exit_code == 0, result.output


@pytest.mark.slow
@pytest.mark.parametrize(("to", "ending"), [("onnx", ".onnx"), ("coreml", ".mlpackage")])  # a file, and a folder
def test_a_real_export_that_ends_at_any_rename_leaves_the_older_file_or_the_new_one(
    to: str, ending: str, tmp_path: Path
) -> None:
    folder, copies = tmp_path / "files", tmp_path / "copies"
    folder.mkdir()
    command = ["export", "tsm_mbv2_motion_online", "--to", to, "--weights", "random"]
    path = folder / f"m{ending}"
    answered(*command, "-o", path, "--seed", 1)
    assert store.opened(path).seed == 1
    traced = [sys.executable, "-c", SNAPSHOTS, str(folder), str(copies)]
    subprocess.run([*traced, *command, "-o", str(path), "--seed", "2"], check=True, capture_output=True)
    left = [copies / str(number) / path.name for number in range(len(listing(copies)))]
    found = []
    for file in left:
        found.append(store.opened(file).seed)
        answered("verify", file, "--steps", 2)
    assert (found[0], found[-1], found) == (1, 2, sorted(found))
    # The next export sweeps away what the last one left.
    answered(*command, "-o", left[-1], "--seed", 3)
    assert store.opened(left[-1]).seed == 3
    assert listing(left[-1].parent) == {path.name, "m.json"}


@pytest.mark.slow
def test_a_real_export_that_is_killed_while_converting_is_swept(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    command = [sys.executable, "-m", "tsmzoo", "export", "tsm_mbv2_motion_online", "--to", "tflite", "-o", str(path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        while process.poll() is None and not listing(tmp_path):
            time.sleep(0.05)
        process.kill()
    assert len(listing(tmp_path)) == 1
    subprocess.run(command, check=True, capture_output=True)
    assert listing(tmp_path) == {path.name, "m.json"}
