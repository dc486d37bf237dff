"""Files are read without hanging and written whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tsmzoo import files


def test_write_replaces_at_once_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    files.write(path, "old")
    files.write(path, b"new")
    assert path.read_bytes() == b"new"
    assert [each.name for each in tmp_path.iterdir()] == ["a.txt"]


def _fail_half_way(part: Path) -> None:
    part.write_text("half")
    part.parent.read_bytes()


def test_a_block_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(IsADirectoryError), files.replacing(path) as part:
        _fail_half_way(part)
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["a.txt"]


def test_folders_take_their_name_whole(tmp_path: Path) -> None:
    with files.replacing(tmp_path / "a.mlpackage") as part:
        part.mkdir()
        (part / "inside").write_text("x")
        assert not (tmp_path / "a.mlpackage").exists()
    assert (tmp_path / "a.mlpackage" / "inside").read_text() == "x"


def test_what_a_killed_process_left_is_swept_by_the_next(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from tsmzoo import files\n"
        "with files.replacing(Path(sys.argv[1])) as part: part.write_text('half'); os._exit(1)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "a.txt")], check=False)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".a.txt.")
    mine = left.with_name(left.name.replace("a.txt", "b.txt"))
    mine.touch()  # of another name: not swept
    files.write(tmp_path / "a.txt", "whole")
    assert {each.name for each in tmp_path.iterdir()} == {"a.txt", mine.name}


def test_what_a_living_process_writes_is_not_swept(tmp_path: Path) -> None:
    with files.replacing(tmp_path / "a.txt") as part:
        other = part.with_name(part.name.replace(f"-{os.getpid()}.", f"-{os.getppid()}."))
        part.write_text("x")
        other.touch()
        files.sweep(tmp_path / "a.txt")
        assert other.exists()


def test_a_link_is_followed_and_a_link_at_the_part_is_not(tmp_path: Path) -> None:
    target, precious = tmp_path / "target", tmp_path / "precious"
    target.write_text("old")
    precious.write_text("precious")
    (tmp_path / "link").symlink_to(target)
    with files.replacing(target) as part:
        name = part.name
        part.write_text("x")
    (tmp_path / name).symlink_to(precious)
    files.write(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert target.read_text() == "new"
    assert precious.read_text() == "precious"


def test_devices_are_neither_replaced_nor_read(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no regular file"):
        files.write(Path("/dev/null"), "x")
    with pytest.raises(OSError, match="no regular file"):
        files.read(Path("/dev/zero"))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="no regular file"):
        files.read(tmp_path / "pipe")
    with pytest.raises(IsADirectoryError):
        files.read(tmp_path)


def test_reading_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert files.read(tmp_path / "a", 5) == b"12345"
    with pytest.raises(OSError, match="more than 4 bytes"):
        files.read(tmp_path / "a", 4)
