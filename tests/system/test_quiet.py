"""What converter libraries say stays off the terminal, unless it may tell why they failed."""

from __future__ import annotations

import errno
import io
import logging
import os
import re
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout

import pytest
import typer
from typer.testing import CliRunner

from tsmzoo.errors import ExportError
from tsmzoo.system.quiet import _log, quiet


def by_print() -> None:
    print("CHATTER")
    print("CHATTER", file=sys.stderr)


def by_descriptor() -> None:
    """As C++ code does."""
    os.write(1, b"CHATTER\n")
    os.write(2, b"CHATTER\n")


def by_warning() -> None:
    # Under `-W error` a warning that is not caught is an error.
    warnings.warn("CHATTER", RuntimeWarning, stacklevel=1)


def by_logging() -> None:
    logger = logging.getLogger("tsmzoo.test_quiet")
    handler = logging.StreamHandler()
    logger.addHandler(handler)
    logger.error("CHATTER")
    logger.removeHandler(handler)


def by_child() -> None:
    subprocess.run(["sh", "-c", "echo CHATTER; echo CHATTER >&2"], check=True)


def by_print_and_descriptor() -> None:
    by_print()
    by_descriptor()


def fail(speak: Callable[[], None], error: BaseException) -> None:
    with quiet():
        speak()
        raise error


WAYS = [by_print, by_descriptor, by_warning, by_logging, by_child]


@pytest.mark.parametrize("speak", WAYS)
def test_chatter_is_swallowed(speak: Callable[[], None], capfd: pytest.CaptureFixture[str]) -> None:
    print("before")
    with quiet():
        speak()
    print("after")
    os.write(2, b"after\n")
    assert capfd.readouterr() == ("before\nafter\n", "after\n")


@pytest.mark.parametrize("speak", [way for way in WAYS if way is not by_warning])
def test_chatter_is_shown_with_a_bug(speak: Callable[[], None], capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError, match="converter fell over"):
        fail(speak, RuntimeError("converter fell over"))
    out, err = capfd.readouterr()
    assert out == ""
    assert "CHATTER" in err


@pytest.mark.parametrize("error", [ExportError("no"), KeyboardInterrupt()])
def test_chatter_is_not_shown_with_what_a_user_caused(error: BaseException, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(type(error)):
        fail(by_print_and_descriptor, error)
    assert capfd.readouterr() == ("", "")


PLACES = ("ENOSPC", "EDQUOT", "EROFS", "EACCES", "EIO", "EPERM")


@pytest.mark.parametrize("number", [getattr(errno, name) for name in PLACES])
def test_chatter_is_not_shown_with_what_a_disk_caused(number: int, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OSError, match=re.escape(os.strerror(number))):
        fail(by_print_and_descriptor, OSError(number, os.strerror(number), "m.onnx"))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "error", [OSError("the library is broken"), FileNotFoundError(errno.ENOENT, "no such", "x.so")]
)
def test_chatter_is_shown_with_other_errors_of_the_system(error: OSError, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(type(error)):
        fail(by_print_and_descriptor, error)
    assert "CHATTER" in capfd.readouterr().err


def test_chatter_of_an_earlier_block_is_not_shown(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet():
        print("OLDER, and longer than what comes next")
        os.write(1, b"OLDER\n")
    with pytest.raises(ZeroDivisionError):
        fail(lambda: print("newer"), ZeroDivisionError())
    out, err = capfd.readouterr()
    assert (out, err) == ("", "newer\n")


@pytest.mark.parametrize("error", [None, RuntimeError, ExportError, KeyboardInterrupt])
def test_everything_is_put_back(error: type[BaseException] | None) -> None:
    def state() -> tuple[object, ...]:
        targets = tuple((os.fstat(fd).st_dev, os.fstat(fd).st_ino) for fd in (1, 2))
        return sys.stdout, sys.stderr, targets, tuple(warnings.filters)

    with quiet():  # opens the one log of the process
        pass
    before, open_before = state(), len(os.listdir("/dev/fd"))
    try:
        with quiet():
            assert state() != before
            if error:
                raise error("stop")
    except BaseException as caught:
        assert type(caught) is error  # noqa: PT017 - KeyboardInterrupt must not escape
    assert state() == before
    assert len(os.listdir("/dev/fd")) == open_before


def test_text_that_waits_in_a_buffer_comes_out_where_it_belongs() -> None:
    """Piped, Python's own stdout is buffered: what was printed before must not end up in the log."""
    code = """
        import os, sys
        from tsmzoo.system.quiet import quiet
        print("one"); print("ONE", file=sys.stderr)
        kept = sys.stdout, sys.stderr  # as a logging handler does that was made before
        with quiet():
            for stream in kept:
                stream.flush()
                stream.write("CHATTER")
            print("CHATTER"); os.write(1, b"CHATTER")
            print("CHATTER", file=sys.stderr); os.write(2, b"CHATTER")
        print("two"); print("TWO", file=sys.stderr)
    """
    env = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    result = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ("one\ntwo\n", "ONE\nTWO\n")


def test_a_handle_that_a_library_keeps_may_still_be_written_to() -> None:
    with quiet():
        kept = sys.stderr
    kept.write("later")
    kept.flush()
    with quiet():
        pass


def test_redirected_streams_are_put_back() -> None:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        print("before")
        with quiet():
            by_print()
        print("after")
    assert (out.getvalue(), err.getvalue()) == ("before\nafter\n", "")


def test_chatter_of_a_bug_goes_to_redirected_stderr() -> None:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(ZeroDivisionError):
        fail(by_descriptor, ZeroDivisionError())
    assert (out.getvalue(), err.getvalue()) == ("", "CHATTER\nCHATTER\n")


@pytest.mark.parametrize("broken", [False, True])
def test_within_a_command(broken: bool) -> None:
    app = typer.Typer()

    @app.command()
    def command() -> None:
        print("before")
        with quiet():
            by_print_and_descriptor()
            if broken:
                raise ZeroDivisionError
        print("after")

    result = CliRunner().invoke(app)
    assert result.stdout == ("before\n" if broken else "before\nafter\n")
    assert ("CHATTER" in result.stderr) == broken


@pytest.mark.parametrize("error", [AttributeError, OSError])
def test_a_system_without_files_in_memory_keeps_chatter_in_a_file(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refused(_: str) -> int:
        raise error

    monkeypatch.setattr(os, "memfd_create", refused)
    log = _log.__wrapped__()
    log.write("chatter")
    log.seek(0)
    assert (log.read(), capfd.readouterr()) == ("chatter", ("", ""))
    log.close()


def test_threads_leave_the_streams_as_they_were() -> None:
    """Each would take the log of another for the terminal, and the last would leave it there."""
    code = """
        import sys, threading, time
        from tsmzoo.system.quiet import quiet

        def load(number):
            for _ in range(20):
                with quiet():
                    print("CHATTER")
                    time.sleep(0.0005 * number)

        threads = [threading.Thread(target=load, args=(number,)) for number in range(4)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        print("end")
        print("end", file=sys.stderr)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "end\n")


@pytest.mark.parametrize("streams", ["None", "object()"])
def test_a_process_without_a_terminal(streams: str) -> None:
    """A service has no streams, and whoever takes their place may have no `flush`."""
    code = f"""
        import os, sys
        from tsmzoo.system.quiet import quiet

        answer = os.dup(1)
        os.close(1)
        os.close(2)
        sys.stdout = sys.stderr = {streams}
        with quiet():
            os.write(1, b"CHATTER")
        os.write(answer, b"end")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("end", "")
