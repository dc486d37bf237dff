"""Closed pipes, full disks and missing descriptors as the standard streams of the real command."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tsmzoo.system import streams

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="of /dev/full, and of POSIX's shell")

TSMZOO = f"{sys.executable} -m tsmzoo"
FULL = "error: stdout: cannot be written (No space left on device); send the output elsewhere\n"


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a line of the shell, in which `tsmzoo` is the command; a pipe's status is the command's."""
    line = f'set -o pipefail; tsmzoo() {{ {TSMZOO} "$@"; }}; {line}'
    return subprocess.run(["bash", "-c", line], env=os.environ | environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    "words", ["list --all", "list --all --json", "info tsm_r50_sthv2 --json", "--help", "--version"]
)
def test_a_closed_pipe_ends_quietly(words: str) -> None:
    # `true` may end before or after the command writes: its end of the pipe is closed first.
    done = shell(f"tsmzoo {words} | true" if words.startswith("--") else f"(sleep 0.2; tsmzoo {words}) | true")
    assert done.stderr == ""
    assert done.returncode in (0, 141) if words.startswith("--") else done.returncode == 141


@pytest.mark.parametrize("words", ["list", "list --json", "--help", "--version", "info tsm_r50_sthv2"])
def test_a_full_disk_is_one_line(words: str) -> None:
    done = shell(f"tsmzoo {words} > /dev/full")
    assert (done.returncode, done.stderr) == (1, FULL)


@pytest.mark.parametrize("how", ["2>&-", "2>/dev/full", "<&-", "2>&- <&-", "2> >(exec true)"])
def test_stderr_and_stdin_are_not_needed(how: str) -> None:
    done = shell(f"tsmzoo info tsm_r50_sthv2 --json {how}")
    assert json.loads(done.stdout)["id"] == "tsm_r50_sthv2_8f_mit"
    assert (done.returncode, done.stderr) == (0, "")
    failed = shell(f"tsmzoo info no-such-model {how}")
    assert (failed.returncode, failed.stdout) == (1, "")


@pytest.mark.parametrize("how", [">&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_command_without_stdout_does_its_work(how: str, tmp_path: Path) -> None:
    done = shell(f"tsmzoo data motion {tmp_path / 'clips'} --videos 2 {how}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    written = sorted(path for path in (tmp_path / "clips").rglob("*") if path.is_file())
    # Nothing that is printed ended in a file that took the number of a closed descriptor.
    assert not [path for path in written if b"annotations.txt lists them" in path.read_bytes()]
    assert len([path for path in written if path.suffix == ".mp4"]) == 2


def test_a_pipe_that_does_not_block_gets_all() -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    expected = subprocess.run([*TSMZOO.split(), "list", "--all", "--json"], capture_output=True, check=True).stdout
    with subprocess.Popen([*TSMZOO.split(), "list", "--all", "--json"], stdout=write) as process:
        os.close(write)
        with open(read, "rb") as file:
            assert file.read() == expected
    assert process.returncode == 0
    assert len(expected) > 2**16, "more than a pipe holds"


def test_a_terminal_is_sent_no_sequences_of_others() -> None:
    """A bar's title is the user's text: brackets in it are no markup, and escapes none."""
    code = (
        "import sys\n"
        "from tsmzoo.cli import _terminal as terminal\nfrom tsmzoo.system import streams\nstreams.prepare()\n"
        "with terminal.steps_bar() as bar: bar('[/red]\\x1b[2J\\x07' + 'x' * 5000, 1, 2)\n"
        "with terminal.stages() as stage: stage('[/red]\\x1b[2J\\x07' + 'x' * 5000)\n"
        "with terminal.download_bar('[/red]\\x1b[2J\\x07') as bar: bar('', 1, 2)\n"
        "print('end')"
    )
    for term in ("xterm", "dumb"):
        seen = on_terminal([sys.executable, "-c", code], TERM=term, COLUMNS="0" if term == "dumb" else "80")
        assert seen.endswith("end\r\n")
        assert "Traceback" not in seen
        assert "\x1b[2J" not in seen
        assert "\x07" not in seen
        assert len(seen) < 20_000


def test_the_live_view_shows_labels_as_text() -> None:
    code = (
        "from tsmzoo import Prediction\n"
        "from tsmzoo.cli import _screen as screen\nfrom tsmzoo.live.answer import Answer, Summary\n"
        "bad = '[/red]\\x1b[2J\\x07\\n' + 'x' * 100_000\n"
        "answer = Answer(0.0, (best := Prediction(bad, 0.9, 0)), [best], 1.0, 1.0)\n"
        "summary = Summary()\nsummary.add(answer)\n"
        "with screen.screen(live=True) as view: view(answer, summary)\n"
        "with screen.screen(live=False) as view: view(answer, summary)\n"
        "print(screen.text('a', 'step', 'r', summary))\nprint('end')"
    )
    seen = on_terminal([sys.executable, "-c", code], TERM="xterm")
    assert seen.endswith("end\r\n")
    assert r"[/red]\x1b[2J\x07\nxxx" in seen
    assert "\x1b[2J" not in seen
    assert len(seen) < 5000


def on_terminal(words: list[str], **environment: str) -> str:
    """Return what a process writes to a terminal of its own, until it ends."""
    ours, theirs = pty.openpty()
    env = os.environ | environment
    with subprocess.Popen(
        words, stdin=theirs, stdout=theirs, stderr=theirs, env=env, start_new_session=True
    ) as process:
        os.close(theirs)
        seen = b""
        while True:
            try:
                block = os.read(ours, 65536)
            except OSError:  # the last process that had it is gone
                break
            if not block:
                break
            seen += block
        os.close(ours)
    assert process.returncode == 0, seen.decode()
    return seen.decode()


def test_on_windows_pythons_own_streams_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """A console there takes characters, not bytes."""
    before = sys.stdout, sys.stderr
    monkeypatch.setattr(streams, "_WINDOWS", True)
    monkeypatch.setattr(streams, "_is", lambda *_: True)
    try:
        streams.prepare()
        assert (sys.stdout, sys.stderr) == before
    finally:
        sys.stdout, sys.stderr = before
