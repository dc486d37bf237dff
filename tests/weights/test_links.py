"""`doctor --links`: which addresses still have the file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tsmzoo.catalog import links

from .conftest import BODY, EXPIRED, NAME, Reply, Server

if TYPE_CHECKING:
    from collections.abc import Callable

    from typer.testing import Result

    from tsmzoo.registry import Entry

PAGE = Reply(b"<html>Buy this domain</html>", headers={"Content-Type": "text/html; charset=utf-8"})
SIZE = len(BODY)
#: Answers of a server; then status, bytes, whether the size fits, and what is said if the file is not there.
ANSWERS: dict[str, tuple[list[Reply], int | None, int | None, bool | None, str | None]] = {
    "there": ([Reply()], 200, SIZE, True, None),
    "HEAD is forbidden": ([Reply(head=403, ranges="always")], 206, SIZE, True, None),
    "HEAD is not allowed, ranges are ignored": ([Reply(head=405)], 200, SIZE, True, None),
    "HEAD is not known": ([Reply(head=501, ranges="always")], 206, SIZE, True, None),
    "HEAD says gone": ([Reply(head=404)], 200, SIZE, True, None),
    "HEAD says empty": ([Reply(b""), Reply(ranges="always")], 206, SIZE, True, None),
    "HEAD is a web page": ([PAGE, Reply()], 200, SIZE, True, None),
    "HEAD is not answered": ([Reply(hold=lambda: 1 / 0), Reply()], 200, SIZE, True, None),
    "busy, then there": ([Reply(b"", 503), Reply()], 200, SIZE, True, None),
    "HEAD has no length": ([Reply(headers={"Content-Length": ""}), Reply(ranges="always")], 206, SIZE, True, None),
    "no length at all": ([Reply(headers={"Content-Length": ""})], 200, None, None, None),
    "redirected": ([Reply(b"", 302, {"Location": "/there"})], 200, SIZE, True, None),
    "gone": ([Reply(b"", 404)], 404, None, None, "HTTP 404 Not Found"),
    "forbidden": ([Reply(b"", 403)], 403, None, None, "HTTP 403 Forbidden"),
    "busy": ([Reply(b"", 503)], 503, None, None, "HTTP 503 Service Unavailable"),
    "parked": ([PAGE], 200, None, None, "answered with a web page: the domain may be parked or ask for a log-in"),
    "parked, and HEAD is forbidden": (
        [Reply(PAGE.body, headers=PAGE.headers, head=403)],
        *(200, None, None, "answered with a web page: the domain may be parked or ask for a log-in"),
    ),
    "redirected to a log-in": (
        [Reply(b"", 302, {"Location": "/login"})],
        *(200, None, None, "/login: the domain may be parked or ask for a log-in"),
    ),
    "redirected off https": (
        [Reply(b"", 302, {"Location": "http://ww25.parked.invalid/"})],
        *(None, None, None, "redirected elsewhere (only https:// and hf:// addresses are used, not http://ww25."),
    ),
    "redirected for ever": ([Reply(b"", 302, {"Location": f"/a/{NAME}"})], None, None, None, "more than 20 redirects"),
    "redirected to a host that is gone": (
        [Reply(b"", 302, {"Location": "https://login.invalid/"})],
        *(None, None, None, "no connection to login.invalid (its name does not resolve)"),
    ),
    "cut": ([Reply(b"x")], 200, 1, False, "not the size of this checkpoint: 2 to 16,777,232 bytes"),
    "another file": ([Reply(headers={"Content-Length": "99999999"})], 200, 99999999, False, "not the size of this "),
}


@pytest.fixture
def checked(invoke: Callable[..., Result]) -> Callable[..., list[dict[str, Any]]]:
    """Give a function that checks the addresses of entries, and expects an exit code."""

    def check(*entries: Entry, code: int = 0) -> list[dict[str, Any]]:
        result = invoke(list(entries), "doctor", "--links", f"{entries[0].id}*", "--json")
        assert result.exit_code == code, result.output
        assert result.stderr.count("\n") == code
        return list(json.loads(result.stdout))

    return check


@pytest.mark.parametrize("answer", ANSWERS)
def test_what_an_address_answers(
    answer: str, server: Server, make_entry: Callable[..., Entry], checked: Callable[..., list[dict[str, Any]]]
) -> None:
    replies, status, size, fits, reason = ANSWERS[answer]
    url = server.add(f"/a/{NAME}", *replies)
    server.add("/there", Reply())
    server.add("/login", PAGE)
    (found,) = checked(make_entry(url))
    said = found.pop("reason")
    assert found == {
        **{"model": "tsm_tiny", "recommended": False, "url": url, "tested": True},
        **{"status": status, "bytes": size, "size_fits": fits, "alive": reason is None},
    }
    assert (said is None) if reason is None else (reason in said)


@pytest.mark.parametrize(
    ("trusted", "reason"),
    [
        (True, "no connection (its certificate expired on 2025-08-12)"),
        (False, "no connection (its certificate is refused: self-signed certificate)"),
    ],
)
def test_a_certificate_that_is_refused_is_named(
    trusted: bool,
    reason: str,
    expired: Server,
    make_entry: Callable[..., Entry],
    checked: Callable[..., list[dict[str, Any]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(EXPIRED))
    address = expired.url.replace("http:", "https:")
    found = checked(make_entry(f"{address}/a/{NAME}", f"{address}/b/{NAME}", f"https://checkpoints.invalid/{NAME}"))
    assert [each["reason"] for each in found] == [reason, reason, "no connection (its name does not resolve)"]
    assert expired.requests == []


@pytest.mark.parametrize(("recommended", "code"), [(True, 1), (False, 0)])
def test_a_recommended_model_needs_one_living_source(
    recommended: bool, code: int, server: Server, make_entry: Callable[..., Entry], invoke: Callable[..., Result]
) -> None:
    good, bad = server.add(f"/a/{NAME}", Reply()), f"{server.url}/b/{NAME}"
    entries = [
        make_entry(bad, good, recommended=True),
        make_entry(bad, f"{server.url}/c/{NAME}", recommended=recommended, id="tsm_tiny_dead"),
    ]
    result = invoke(entries, "doctor", "--links", "tsm_tiny*")
    assert result.exit_code == code, result.output
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines[2:6]] == ["tsm_tiny", "tsm_tiny", "tsm_tiny_dead", "tsm_tiny_dead"]
    assert lines[2].endswith("HTTP 404 Not Found")
    assert lines[3].split()[-4:] == ["200", f"{SIZE:,}", "fits", "there"]
    assert lines[6:] == ["1 of 4 addresses have the file, for 1 of 2 models"]
    assert result.stderr == code * (
        "error: recommended models without a living source: tsm_tiny_dead; if you have such a file: "
        "`tsmzoo download MODEL --source URL|FILE`\n"
    )
    # b is that of two models; where a file is not there, HEAD and GET have to say so.
    assert sorted(server.paths()) == [f"/{folder}/{NAME}" for folder in "abbcc"]


def test_hosts_are_asked_side_by_side_and_each_one_thing_at_a_time(
    server: Server, make_entry: Callable[..., Entry], checked: Callable[..., list[dict[str, Any]]]
) -> None:
    both, at_once, most = threading.Barrier(2, timeout=30), 0, 0
    lock = threading.Lock()

    def hold() -> None:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        both.wait()  # for the other host
        time.sleep(0.1)  # for another request to the same one, which must not come
        with lock:
            at_once -= 1

    urls = [server.add(f"/{number}/{NAME}", Reply(hold=hold)) for number in range(3)]
    # The same server, by another name.
    other = [url.replace("127.0.0.1", "localhost") for url in urls]
    found = checked(make_entry(*urls, *other))
    assert [each["alive"] for each in found] == [True] * 6
    assert most == 2


def test_servers_that_do_not_answer_are_not_waited_for(
    server: Server,
    make_entry: Callable[..., Entry],
    checked: Callable[..., list[dict[str, Any]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    over = threading.Event()
    urls = [server.add(f"/{number}/{NAME}", Reply(hold=over.wait)) for number in range(4)]
    monkeypatch.setattr(links, "SECONDS", 0.1)
    found = checked(make_entry(*urls, recommended=True), code=1)
    assert {each["reason"] for each in found} == {"no answer in 0.1 s"}
    assert len(server.requests) == 2  # the others of this server are not asked
    monkeypatch.setattr(links, "SECONDS", 10.0)
    monkeypatch.setattr(links, "SECONDS_IN_ALL", 0.1)
    found = checked(make_entry(*urls), code=0)
    assert {each["reason"] for each in found} == {"no answer in the 0.1 s for all addresses"}
    over.set()


def test_the_hub_is_asked_in_its_own_way(
    server: Server, make_entry: Callable[..., Entry], invoke: Callable[..., Result], tmp_path: Path
) -> None:
    """In a process of its own: its library reads the environment once."""
    about = {"X-Repo-Commit": "0" * 40, "Accept-Ranges": "bytes"}
    server.add("/some/one/resolve/v1/w.pth", Reply(headers=about))
    entry = make_entry("hf://some/one/w.pth@v1", "hf://some/one/gone.pth", "hf://some/file-alone.pth")
    invoke([entry], "list")  # writes the registry
    own = tmp_path / "own.yaml"
    command = [sys.executable, "-m", "tsmzoo", "doctor", "--links", "tsm_tiny", "--json", "--registry", str(own)]
    env = {**os.environ, "HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "hub")}
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    found = json.loads(result.stdout)
    assert [(each["status"], each["bytes"], each["alive"]) for each in found] == [
        *((None, SIZE, True), (None, None, False), (None, None, False))
    ]
    assert "404" in found[1]["reason"]
    assert found[2]["reason"] == "an address on the hub is hf://owner/repo/path"
    assert result.stderr == ""


def test_what_cannot_be_asked_is_one_line(
    server: Server, make_entry: Callable[..., Entry], invoke: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = make_entry(f"{server.url}/a/{NAME}")

    def refusal(*arguments: str) -> str:
        result = invoke([entry], "doctor", "--links", *arguments)
        assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (1, "", 1)
        return result.stderr

    assert "no model is called 'tsm_tinny'" in refusal("tsm_tinny")
    with monkeypatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", "/nowhere/certificates.pem")
        assert "certificate settings of the environment fail" in refusal("tsm_tiny")
    monkeypatch.setenv("TSMZOO_OFFLINE", "1")
    assert "TSMZOO_OFFLINE is set" in refusal("tsm_tiny")
    assert server.requests == []


def test_a_model_that_comes_with_tsmzoo_has_no_address(invoke: Callable[..., Result]) -> None:
    result = invoke([], "doctor", "--links", "tsm_mbv2_motion*")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("no address to ask: these models come with tsmzoo")


def test_models_without_links_are_wrong_usage(invoke: Callable[..., Result]) -> None:
    result = invoke([], "doctor", "tsm_tiny")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--links" in result.stderr
