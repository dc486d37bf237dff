"""Examine the installation: versions, imports, cache, surroundings; and say what to do about what is broken."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import getproxies

import msgspec

import tsmzoo
from tsmzoo.callbacks import Progress, silent
from tsmzoo.errors import ZooError
from tsmzoo.registry import paths
from tsmzoo.system import files
from tsmzoo.text import ERROR, Column, one_line

if TYPE_CHECKING:
    from packaging.requirements import Requirement

#: What the extras that a user may want are for.
EXTRAS = {
    "onnx": "ONNX files",
    "tflite": "TFLite files",
    "coreml": "Core ML packages",
    "plots": "pictures of `report`, the page of `eval --html`",
    "tensorflow": "DeepMind's own checkpoints of I3D, Google's of MoViNet",
}
#: Modules of the packages whose names differ.
_MODULES = {"opencv-python-headless": "cv2", "pillow": "PIL", "pyyaml": "yaml"}
#: Environment variables that matter, besides proxies.
_VARIABLES = (
    *("TSMZOO_CACHE", "TSMZOO_MIRROR", "TSMZOO_OFFLINE", "XDG_CACHE_HOME", "HF_ENDPOINT", "HF_HUB_OFFLINE"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "OMP_NUM_THREADS"),
)
#: Seconds that a package may take to import: TensorFlow from a cold disk.
_PATIENCE = 120.0
#: Prints the names of the devices that torch can compute on.
_DEVICES = """
import json, torch
names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
print(json.dumps(names + ["Apple GPU (MPS)"] * torch.backends.mps.is_available()))
"""


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """A package that tsmzoo uses."""

    name: str
    #: Versions that tsmzoo works with, such as `>=2.10`; empty if any.
    needed: str
    #: Version of the set that is known to work together, `constraints.txt`.
    known_good: str | None
    #: Version here; null if it is not installed.
    installed: str | None
    #: What is wrong with it; null if nothing is. That an extra's package is not installed is nothing wrong.
    problem: str | None


class Extra(msgspec.Struct, frozen=True, kw_only=True):
    """An optional part of tsmzoo: `pip install 'tsmzoo[NAME]'`."""

    name: str
    #: What it is for.
    purpose: str
    #: Whether all its packages are installed and work.
    complete: bool
    packages: list[Package]


class CacheFolder(msgspec.Struct, frozen=True, kw_only=True):
    """The folder in which checkpoints are kept."""

    #: Null if there is no home folder for it.
    path: str | None
    #: Size of all files in it.
    bytes: int
    #: Room on its disk; null if the disk cannot be asked.
    free_bytes: int | None
    writable: bool


class Problem(msgspec.Struct, frozen=True):
    """Something broken."""

    #: What is broken, and why.
    what: str
    #: What to do about it.
    remedy: str


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """The state of the installation."""

    #: Version of tsmzoo.
    version: str
    python: str
    #: System, its version and the processor.
    platform: str
    #: Packages without which tsmzoo does not work.
    packages: list[Package]
    #: What may be installed beside them.
    extras: list[Extra]
    cache: CacheFolder
    #: Environment variables that are set and matter, passwords hidden.
    variables: dict[str, str]
    #: Proxies by kind of address, passwords hidden.
    proxies: dict[str, str]
    #: Names of the GPUs that torch can use.
    gpus: list[str]
    #: What is broken; empty if all is well.
    problems: list[Problem]


def examine(progress: Progress = silent) -> Diagnosis:
    """Examine the installation; each package is imported in a process of its own."""
    problems: list[Problem] = []
    needed = _requirements(problems)
    good = _known_good()
    progress("importing packages", 0, 0)
    with ThreadPoolExecutor(2) as pool:
        examined = list(pool.map(lambda each: _examine(each[1], good, optional=each[0] != ""), needed))
    groups: dict[str, list[Package]] = {name: [] for name in ("", *EXTRAS)}
    gpus: list[str] = []
    for (extra, _), (package, problem, devices) in zip(needed, examined, strict=True):
        groups[extra].append(package)
        problems += [problem] if problem else []
        gpus += devices
    cache = _cache(problems)
    if not any(package.name == "httpx2" and package.problem for package in groups[""]):
        _check_client(problems)
    return Diagnosis(
        version=tsmzoo.__version__,
        python=platform.python_version(),
        platform=platform.platform(),
        packages=groups.pop(""),
        extras=[
            Extra(
                name=name,
                purpose=EXTRAS[name],
                complete=all(each.installed and not each.problem for each in packages),
                packages=packages,
            )
            for name, packages in groups.items()
            if packages
        ],
        cache=cache,
        variables={name: _hidden(os.environ[name]) for name in _VARIABLES if name in os.environ},
        proxies={kind: _hidden(value) for kind, value in sorted(getproxies().items())},
        gpus=gpus,
        problems=problems,
    )


def text(diagnosis: Diagnosis) -> list[str]:
    """Return a diagnosis as lines, without its table of packages."""
    cache = diagnosis.cache
    free = "" if cache.free_bytes is None else f", {_size(cache.free_bytes)} free on its disk"
    lines = [
        f"cache: {cache.path or 'none'}, {_size(cache.bytes)}{free}{'' if cache.writable else ', not writable'}",
        f"GPU: {', '.join(diagnosis.gpus) or 'none that torch can use'}",
        *(f"proxy for {kind}: {value}" for kind, value in diagnosis.proxies.items()),
        *(f"{name}={value}" for name, value in diagnosis.variables.items()),
    ]
    for extra in diagnosis.extras:
        lacking = [package.name for package in extra.packages if not package.installed]
        install = f"lacks {', '.join(lacking)}; pip install 'tsmzoo[{extra.name}]'"
        state = "complete" if extra.complete else install if lacking else "broken"
        lines.append(f"extra {extra.name}, for {extra.purpose}: {state}")
    packages = [*diagnosis.packages, *(package for extra in diagnosis.extras for package in extra.packages)]
    other = [each.name for each in packages if each.installed and each.installed.partition("+")[0] != each.known_good]
    lines.append(f"not of the known-good versions: {', '.join(other) or 'none'}")
    lines += [f"problem: {problem.what}; {problem.remedy}" for problem in diagnosis.problems]
    return lines


#: Of a package, and the extra that it belongs to.
COLUMNS: list[Column[tuple[Package, str]]] = [
    ("package", "left", lambda row: row[0].name),
    ("installed", "left", lambda row: row[0].installed or "–"),
    ("needed", "left", lambda row: row[0].needed or "any"),
    ("known good", "left", lambda row: row[0].known_good or "–"),
    ("extra", "left", lambda row: row[1]),
]


def rows(diagnosis: Diagnosis) -> list[tuple[Package, str]]:
    """Return the packages, each with its extra."""
    groups = [("–", diagnosis.packages), *((extra.name, extra.packages) for extra in diagnosis.extras)]
    return [(package, extra) for extra, packages in groups for package in packages]


# Packages


def _requirements(problems: list[Problem]) -> list[tuple[str, Requirement]]:
    """Return what tsmzoo requires here, each with its extra: "" for what is always required."""
    try:
        from packaging.requirements import Requirement
    except ImportError:
        raise ZooError(
            "the package packaging is missing, without which versions cannot be compared; "
            "install tsmzoo with what it requires: pip install tsmzoo"
        ) from None
    try:
        lines = metadata.requires("tsmzoo") or []
    except metadata.PackageNotFoundError:
        what = "tsmzoo is run from a folder and not installed, so that its requirements are not known here"
        problems.append(Problem(what, "install that folder: pip install FOLDER"))
        return []
    found = []
    for requirement in map(Requirement, lines):
        marker = requirement.marker
        for extra in ("", *EXTRAS):
            if marker is None or marker.evaluate({"extra": extra}):
                found.append((extra, requirement))
                break
    return found


def _known_good() -> dict[str, str]:
    """Return the versions in constraints.txt, by name."""
    try:
        lines = (paths.DATA / "constraints.txt").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    pairs = (line.split("==") for line in lines if not line.startswith("#"))
    return {_normalized(name): version for name, version in pairs}


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _examine(
    requirement: Requirement, known_good: dict[str, str], *, optional: bool
) -> tuple[Package, Problem | None, list[str]]:
    """Return the state of a package, what to do if it is broken, and the devices that it can compute on."""
    name, needed = requirement.name, str(requirement.specifier)
    try:
        installed = metadata.version(name)
    except metadata.PackageNotFoundError:
        installed = None
    good = known_good.get(_normalized(name))
    wrong, remedy = None, f"pip install '{name}{needed}'"
    devices: list[str] = []
    if installed is not None and not requirement.specifier.contains(installed, prereleases=True):
        wrong = f"version {installed} does not fit, {needed} is needed"
    elif installed is not None or not optional:
        module = _MODULES.get(name, name.replace("-", "_"))
        printed, wrong = _run(f"import {module}\n{_DEVICES if name == 'torch' else ''}")
        if wrong is None:
            devices = json.loads(printed.splitlines()[-1]) if name == "torch" else []
        elif installed is None:  # only now: opencv-python gives the module of opencv-python-headless, too
            wrong = "it is not installed"
        else:
            wrong = f"its import fails: {wrong}"
            again = f"{name}=={good}" if good else f"{name}{needed}"
            remedy = f"install what that lacks, or it again: pip install --force-reinstall '{again}'"
    package = Package(name=name, needed=needed, known_good=good, installed=installed, problem=wrong)
    return package, Problem(f"{name}: {wrong}", remedy) if wrong else None, devices


def _run(code: str) -> tuple[str, str | None]:
    """Return what `code` prints in a process of its own, and the last line of its error; None without an error.

    Libraries that do not fit end the process, or fail only beside one another.
    """
    try:
        result = subprocess.run(
            [sys.executable, "-P", "-c", code],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "", f"it does not end within {_PATIENCE:g} s"
    if result.returncode == 0:
        return result.stdout, None
    if result.returncode < 0:
        return "", f"the process is ended by the system ({signal.strsignal(-result.returncode)})"
    said = [line for line in result.stderr.splitlines() if line.strip()]
    return "", one_line(said[-1] if said else f"the process exits with {result.returncode}", ERROR)


# Surroundings


def _cache(problems: list[Problem]) -> CacheFolder:
    remedy = "set TSMZOO_CACHE to a folder that can be written"
    try:
        folder = paths.cache_dir()
    except ZooError as error:
        what, _, remedy = str(error).partition("; ")
        problems.append(Problem(what, remedy))
        return CacheFolder(path=None, bytes=0, free_bytes=None, writable=False)
    existing = next(each for each in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(each))
    free = None
    try:
        free = shutil.disk_usage(existing).free
        with tempfile.TemporaryFile(dir=existing):
            writable = True
    except OSError as error:
        writable = False
        problems.append(Problem(f"the cache {folder} cannot be written ({files.reason(error)})", remedy))
    return CacheFolder(path=str(folder), bytes=_bytes(folder), free_bytes=free, writable=writable)


def _bytes(folder: Path) -> int:
    """Return the bytes of all files below `folder`, as far as it can be read."""
    total = 0
    for inside, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(inside, name)).st_size
            except OSError:  # removed meanwhile
                continue
    return total


def _check_client(problems: list[Problem]) -> None:
    """Report settings of proxies and certificates with which nothing can be downloaded."""
    from tsmzoo.weights import http

    try:
        http.new_client(http.TIMEOUT, http.CONNECT_TIMEOUT).close()
    except http.Refused as error:
        problems.append(Problem(str(error), "mend or unset HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE"))


def _hidden(value: str) -> str:
    """Return the value of a variable without a user name or password in it."""
    return re.sub(r"(?s)^(\w[\w+.-]*://)?.*@", r"\1***@", value)


def _size(number: int) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.1f} MB"
