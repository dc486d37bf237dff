"""Files are read without hanging and written whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tsmzoo.system import files


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
        "import os, sys; from pathlib import Path; from tsmzoo.system import files\n"
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


def test_long_names_with_one_beginning_share_nothing(tmp_path: Path) -> None:
    one, two = tmp_path / ("x" * 150 + "-one"), tmp_path / ("x" * 150 + "-two")
    with files.beside(one) as part:
        part.mkdir()
        with files.beside(two) as other:
            assert other != part
            assert part.is_dir()
    # What was moved aside to put another in its place is given back to its own name.
    one.mkdir()
    (one / "inside").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "_exchange", lambda *_: False)
        patch.setattr(files, "remove", lambda _: None)  # as if killed before
        part = tmp_path / "part"
        part.mkdir()
        files.supplant(part, one)
    (aside,) = (path for path in tmp_path.iterdir() if path.name.endswith(".old"))
    files.recover(two)
    assert (aside.is_dir(), two.exists()) == (True, False)


def test_a_process_that_was_forked_has_names_of_its_own(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from tsmzoo.system import files\n"
        "with files.beside(Path(sys.argv[1])) as part:\n"
        "    part.write_text('x')\n"
        "    if (child := os.fork()) == 0:\n"
        "        with files.beside(Path(sys.argv[1])) as other: os._exit(other == part or not part.exists())\n"
        "    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path / "a")], check=False).returncode == 0


@pytest.mark.parametrize("number", [errno.EACCES, errno.EINVAL, errno.ENOTSUP, errno.EIO, errno.ENOSPC])
def test_a_folder_that_its_disk_cannot_sync_refuses_nothing(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)
    if number in (errno.EIO, errno.ENOSPC):
        with pytest.raises(OSError, match=os.strerror(number)):
            files.write(tmp_path / "a", "new")
    else:
        files.write(tmp_path / "a", "new")
        (tmp_path / "part").mkdir()
        files.supplant(tmp_path / "part", tmp_path / "b")
    monkeypatch.setattr(os, "fsync", lambda _: os.fstat(-1))  # of a file any failure counts
    with pytest.raises(OSError, match="Bad file descriptor"):
        files.write(tmp_path / "a", "newer")
    assert (tmp_path / "a").read_text() == "new"


def test_on_windows_no_process_is_signalled_and_files_are_opened_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There `os.kill` presses Ctrl-C, folders cannot be opened, and a file read alone cannot be brought to the disk."""
    monkeypatch.setattr(files, "_WINDOWS", True)
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("a process was signalled"))
    flags: dict[int, int] = {}
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: flags.update({descriptor: fcntl.fcntl(descriptor, fcntl.F_GETFL)})
    )
    left = tmp_path / f".a.{files._host()}-999999999.part"
    left.touch()
    files.write(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "new"
    assert left.exists()
    assert [each & os.O_ACCMODE for each in flags.values()] == [os.O_RDWR]
