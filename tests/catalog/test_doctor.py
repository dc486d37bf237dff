"""`doctor`: what is broken in an installation, and what to do about it.

The requirements of tsmzoo are written for each test, and their modules with them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner, Result

import tsmzoo
from tsmzoo.cli import app

if TYPE_CHECKING:
    from collections.abc import Callable

TORCH = """
class cuda:
    device_count, get_device_name = lambda: 1, lambda number: f"Card {number}"
class backends:
    class mps:
        is_available = lambda: True
"""


class Installation:
    """Packages, which come before those of the environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def require(self, *requirements: str) -> None:
        self._describe("tsmzoo", tsmzoo.__version__, requirements)

    def add(self, name: str, version: str | None, module: str, code: str = "") -> None:
        """Add a package, or only its module, without a version."""
        if version:
            self._describe(name, version, ())
        (self.folder / f"{module}.py").write_text(code)

    def _describe(self, name: str, version: str, requirements: tuple[str, ...]) -> None:
        about = self.folder / f"{name.replace('-', '_')}-{version}.dist-info"
        about.mkdir()
        lines = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {each}" for each in requirements)]
        (about / "METADATA").write_text("\n".join(["Metadata-Version: 2.1", *lines]) + "\n")


@pytest.fixture
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installation:
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)  # for versions
    monkeypatch.setenv("PYTHONPATH", str(folder))  # for imports, in processes of their own
    for name in ("TSMZOO_MIRROR", *(f"{kind}_PROXY" for kind in ("HTTP", "HTTPS", "ALL", "NO"))):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return Installation(folder)


def doctor(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["doctor", *arguments])


@pytest.fixture
def problem() -> Callable[[], str]:
    """Give a function that expects one problem, in the document and as the error, and returns it."""

    def find() -> str:
        result = doctor("--json")
        assert result.exit_code == 1, result.output
        (found,) = json.loads(result.stdout)["problems"]
        said = f"{found['what']}; {found['remedy']}"
        assert result.stderr == f"error: {said}\n"
        assert f"\nproblem: {said}\n" in doctor().stdout
        return said

    return find


def packages(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    groups = [document["packages"], *(extra["packages"] for extra in document["extras"])]
    return {package.pop("name"): package for group in groups for package in group}


def test_a_good_installation(installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installation.require("torch>=2.10", 'OnnxRuntime>=1.28; extra == "onnx"', 'some-linter; extra == "dev"')
    installation.add("torch", "2.13.0+cpu", "torch", TORCH)
    installation.add("OnnxRuntime", "1.29", "OnnxRuntime")
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "x.pth").write_bytes(bytes(1_500_000))
    monkeypatch.setenv("TSMZOO_CACHE", str(cache))
    result = doctor("--json")
    assert (result.exit_code, result.stderr) == (0, "")
    found = json.loads(result.stdout)
    assert packages(found) == {
        "torch": {"needed": ">=2.10", "known_good": "2.13.0", "installed": "2.13.0+cpu", "problem": None},
        "OnnxRuntime": {"needed": ">=1.28", "known_good": "1.31.1", "installed": "1.29", "problem": None},
    }
    assert found["gpus"] == ["Card 0", "Apple GPU (MPS)"]
    assert [(extra["name"], extra["complete"]) for extra in found["extras"]] == [("onnx", True)]
    assert found["cache"]["free_bytes"] > 0
    found["cache"].pop("free_bytes")
    assert found["cache"] == {"path": str(cache), "bytes": 1_500_000, "writable": True}
    assert found["variables"]["TSMZOO_CACHE"] == str(cache)
    assert found["problems"] == []

    lines = doctor().stdout.splitlines()
    assert lines[0].startswith(f"tsmzoo {tsmzoo.__version__}, Python 3.")
    assert [line.split() for line in lines[3:5]] == [
        ["torch", "2.13.0+cpu", ">=2.10", "2.13.0", "–"],
        ["OnnxRuntime", "1.29", ">=1.28", "1.31.1", "onnx"],
    ]
    assert f"cache: {cache}, 1.5 MB, " in lines[5]
    assert "GPU: Card 0, Apple GPU (MPS)" in lines
    assert "extra onnx, for ONNX files: complete" in lines
    assert lines[-1] == "not of the known-good versions: OnnxRuntime"


def test_extras_that_are_not_installed_are_no_problem(installation: Installation) -> None:
    installation.require('absent>=1; extra == "onnx"', 'present; extra == "onnx"', 'absent>=1; extra == "tflite"')
    installation.add("present", "1", "present")
    result = doctor()
    assert (result.exit_code, result.stderr) == (0, "")
    assert "extra onnx, for ONNX files: lacks absent; pip install 'tsmzoo[onnx]'\n" in result.stdout
    assert "GPU: none that torch can use\n" in result.stdout


@pytest.mark.parametrize("extra", ["", '; extra == "onnx"'])
@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("raise ImportError('libx.so.1:\\ncannot open shared object')", "cannot open shared object"),
        ("import os; os.abort()", "the process is ended by the system (Aborted)"),
        ("raise SystemExit(3)", "the process exits with 3"),
        ("print(1, flush=True); syntax error", "SyntaxError: invalid syntax"),
    ],
)
def test_an_import_that_fails(
    code: str, why: str, extra: str, installation: Installation, problem: Callable[[], str]
) -> None:
    installation.require(f"torch>=2.10{extra}")
    installation.add("torch", "2.12", "torch", code)
    assert problem() == (
        f"torch: its import fails: {why}; install what that lacks, or it again: "
        "pip install --force-reinstall 'torch==2.13.0'"
    )


def test_a_gpu_that_fails_is_a_line(installation: Installation, problem: Callable[[], str]) -> None:
    installation.require("torch")
    installation.add("torch", "2.12", "torch", TORCH.replace('f"Card {number}"', "1 / 0"))
    assert "torch: its import fails: ZeroDivisionError: division by zero; " in problem()


def test_a_package_that_is_missing(installation: Installation, problem: Callable[[], str]) -> None:
    installation.require("absent>=1", "other-one")
    installation.add("other-one", None, "other_one")  # the module comes from a package of another name
    assert problem() == "absent: it is not installed; pip install 'absent>=1'"


@pytest.mark.parametrize("extra", ["", '; extra == "onnx"'])
def test_a_version_that_does_not_fit(extra: str, installation: Installation, problem: Callable[[], str]) -> None:
    installation.require(f"some-one>=1.10{extra}")
    installation.add("some-one", "1.9", "some_one")
    assert problem() == "some-one: version 1.9 does not fit, >=1.10 is needed; pip install 'some-one>=1.10'"


def test_a_cache_that_cannot_be_written(
    installation: Installation, problem: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installation.require()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TSMZOO_CACHE", str(tmp_path / "file" / "cache"))
    assert problem() == (
        f"the cache {tmp_path}/file/cache cannot be written (Not a directory); "
        "set TSMZOO_CACHE to a folder that can be written"
    )
    monkeypatch.setenv("TSMZOO_CACHE", "~nobody-of-this-name/cache")
    assert problem() == "the cache ~nobody-of-this-name/cache: no such home folder; set TSMZOO_CACHE to a folder"


def test_a_cache_that_is_not_there_yet_is_not_made(
    installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installation.require()
    monkeypatch.setenv("TSMZOO_CACHE", str(tmp_path / "new" / "cache"))
    found = json.loads(doctor("--json").stdout)
    assert (found["cache"]["bytes"], found["cache"]["writable"]) == (0, True)
    assert not (tmp_path / "new").exists()


def test_passwords_are_hidden(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    installation.require()
    monkeypatch.setenv("HTTPS_PROXY", "http://user:se/c:r@et@proxy.example:8080")
    monkeypatch.setenv("ALL_PROXY", "user:se/c:r@et@proxy.example:8080")
    monkeypatch.setenv("TSMZOO_MIRROR", "https://user:se/c:r@et@mirror.example/files")
    for arguments in ((), ("--json",)):
        output = doctor(*arguments).output
        assert "user" not in output
        assert "r@et" not in output
        for shown in ("http://***@proxy.example:8080", "https://***@mirror.example/files"):
            assert shown in output


@pytest.mark.parametrize("proxy", ["http://me:hun/ter@proxy:80", "http://me:hun\nter@proxy:80", "odd://me:hun@proxy:8"])
def test_a_password_that_breaks_a_proxy_is_hidden(
    proxy: str, installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    installation.require("httpx2")
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    result = doctor()
    assert "the proxy or certificate settings of the environment fail" in result.stderr
    assert not any(part in result.output for part in ("hun", "ter@", "me:"))


def test_settings_that_prevent_downloads(
    installation: Installation, problem: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    installation.require("httpx2")
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/certificates.pem")
    said = problem()
    assert said.startswith("the proxy or certificate settings of the environment fail (")
    assert said.endswith("; mend or unset HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE")
