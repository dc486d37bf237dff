"""What lands in site-packages, and that wheel, editable install and bare checkout all find their data."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROBE = (
    "import tsmzoo.registry, tsmzoo.registry.recipes, importlib.util as u; print(len(tsmzoo.registry.load().models), \
tsmzoo.registry.recipes.target('onnx').steps, *(u.find_spec(f'tsmzoo.converters.{n}') is not None for n in \
('onnx', 'tflite', 'coreml')))"
)
#: Entries, as many as the file has.
ENTRIES = (ROOT / "registry.yaml").read_text(encoding="utf-8").count("\n  - id: ")
FOUND = f"{ENTRIES} 16 True True True"


def run(*command: str | Path, cwd: Path) -> str:
    # No PYTHONPATH or PYTHONHOME of ours may lend the other environment what it lacks.
    env = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    result = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_bare_checkout_finds_converters_and_data(tmp_path: Path) -> None:
    code = f"import sys; sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in repr(f).lower()]; \
sys.path.insert(0, {str(ROOT)!r}); {PROBE}"
    assert run(sys.executable, "-c", code, cwd=tmp_path) == FOUND


def test_editable_install_shows_only_tsmzoo(tmp_path: Path) -> None:
    assert run(sys.executable, "-c", PROBE, cwd=tmp_path) == FOUND
    for name in ("converters", "recipes"):
        code = f"import importlib.util as u; print(u.find_spec({name!r}))"
        assert run(sys.executable, "-c", code, cwd=tmp_path) == "None"


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="what is to be packed is what git tracks")
def test_wheel_holds_all_and_nothing_else(tmp_path: Path) -> None:
    run(sys.executable, "-m", "build", "--outdir", tmp_path, cwd=ROOT)  # through the sdist
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
    packed = ("tsmzoo", "converters", "recipes", "registry.yaml", "constraints.txt")
    sources = run("git", "ls-files", *packed, cwd=ROOT).splitlines()
    assert "tsmzoo/py.typed" in sources
    assert sorted(names) == sorted(f"tsmzoo/{path.removeprefix('tsmzoo/')}" for path in sources)

    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    # `list` and `info` need no more than these.
    constraints = ("-c", str(ROOT / "constraints.txt"))
    run(python, "-m", "pip", "install", "-q", *constraints, "typer", "pyyaml", "msgspec", cwd=tmp_path)
    run(python, "-m", "pip", "install", "-q", "--no-deps", str(wheel), cwd=tmp_path)
    assert run(python, "-c", PROBE, cwd=tmp_path) == FOUND
    assert "tsm_mbv2_online" in run(environment / "bin" / "tsmzoo", "list", cwd=tmp_path)
    assert "Doing other things" in run(environment / "bin" / "tsmzoo", "info", "tsm_mbv2_online", cwd=tmp_path)
    assert run(python, "-c", "import importlib.util as u; print(u.find_spec('converters'))", cwd=tmp_path) == "None"
