"""The README and the documentation: their Python runs, and what they name exists."""

from __future__ import annotations

import re
import runpy
import shutil
from pathlib import Path

import pytest

import tsmzoo
from tsmzoo.data import motion
from tsmzoo.data.encode import encode

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
MODEL = "tsm_mbv2_motion_online"


def blocks(page: Path, language: str) -> list[str]:
    """Return the blocks of code of a page."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with what the pages speak of: a video, labelled ones, a folder of gestures."""
    folder = tmp_path_factory.mktemp("docs")
    frames, label = motion.scene(4, 3)
    encode(folder / "video.mp4", frames, motion.FPS)
    for part, seed in (("train", 11), ("val", 12)):
        source = folder / part
        motion.write(source, 28, seed, lambda *_: None)
        for line in (source / "annotations.txt").read_text("utf-8").splitlines():
            name, label = line.split()
            if (gesture := motion.CLASSES[int(label)]).startswith("moving"):
                target = folder / "gestures" / part / gesture
                target.mkdir(parents=True, exist_ok=True)
                shutil.copy(source / name, target)
    return folder


QUICK = [page for page in PAGES if page.name in ("api.md", "researcher.md")]
#: Their Python exports or trains.
LONG = [page for page in PAGES if page not in QUICK and page.name != "python.md" and blocks(page, "python")]


@pytest.mark.parametrize("page", [*QUICK, *(pytest.param(page, marks=pytest.mark.slow) for page in LONG)], ids=page_id)
def test_python_of_a_page_runs(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    code = blocks(page, "python")
    for format_, library in (("onnx", "onnxscript"), ("tflite", "litert_torch")):
        if any(f'"{format_}"' in block or f'.{format_}"' in block for block in code):
            pytest.importorskip(library)
        if any(f"{MODEL}-fp32.{format_}" in block for block in code):
            tsmzoo.export(MODEL, to=format_)
    if any("my_gestures.yaml" in block for block in code):
        (recipe,) = blocks(page, "yaml")
        Path("my_gestures.yaml").write_text(recipe, "utf-8")
    names = {"frames": motion.scene(4, 3)[0][:, :64, :64]}
    for block in code:
        exec(compile(block, page_id(page), "exec"), names)


@pytest.mark.slow
def test_notebook_prints_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxscript")
    notebook = runpy.run_path(str(ROOT / "docs" / "notebook.py"))
    monkeypatch.chdir(tmp_path)
    shown = [notebook["printed"](cell) for cell in notebook["cells"]() if cell["cell_type"] == "code"]
    assert notebook["run"]() == shown


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_paths_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    named = re.findall(r"`((?:tsmzoo|converters|recipes|tests|docs)/[\w/.*-]*)`", text)
    assert [path for path in named if not any(ROOT.glob(path.rstrip("/")))] == []


def test_contributing_names_every_package() -> None:
    text = (ROOT / "docs" / "contributing.md").read_text("utf-8")
    packages = {path.parent.name for path in (ROOT / "tsmzoo").glob("*/__init__.py")}
    assert {name for name in packages if f"| `tsmzoo/{name}` |" not in text} == set()


def test_order_of_packages_is_the_one_that_is_checked() -> None:
    """The rows of the table run downwards, as the layers of import-linter do."""
    text = (ROOT / "docs" / "contributing.md").read_text("utf-8")
    layers = re.search(
        r"^layers = \[\n(.*?)^\]", (ROOT / "pyproject.toml").read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    assert layers is not None
    shown = re.findall(r"^\| `tsmzoo/(\w+)` \|", text, re.MULTILINE)
    assert shown == [name for name in re.findall(r"\w+", layers[1]) if (ROOT / "tsmzoo" / name).is_dir()]


def test_api_page_has_every_public_name() -> None:
    page = (ROOT / "docs" / "api.md").read_text("utf-8")
    shown = set(re.findall(r"^::: tsmzoo\.(\w+)$", page, re.MULTILINE))
    assert {name for name in tsmzoo.__all__ if not name.endswith(("Error", "__"))} == shown - {"errors"}


def test_changelog_has_the_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert re.search(r"^## \[(.*?)\]", text, re.MULTILINE)[1] == tsmzoo.__version__
