"""What commands write: whole or not at all, wherever they fail or end, and nothing beside it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from matplotlib.figure import Figure
from typer.testing import CliRunner

from tsmzoo import registry
from tsmzoo.artifact.contract import Verification
from tsmzoo.artifact.converter import converter_of
from tsmzoo.benchmarking import plots
from tsmzoo.cli import app
from tsmzoo.data import decode, motion
from tsmzoo.errors import ZooError
from tsmzoo.evaluation import predictions
from tsmzoo.evaluation.predictions import Store
from tsmzoo.exporting.kit import kit
from tsmzoo.exporting.kit.vector import Vector
from tsmzoo.formats import Format
from tsmzoo.inference import describe
from tsmzoo.weights.load import load_network

ZOO = registry.load()
MODEL = "tsm_mbv2_motion_online"


def command(*arguments: object) -> None:
    """Run a command; raise what a user reads where it fails, and what ends it."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exit_code == 1 and isinstance(result.exception, SystemExit):
        error = result.stderr.splitlines()[-1]
        assert error.startswith("error: "), result.output
        raise ZooError(error)
    if result.exception is not None:
        raise result.exception


def tree(folder: Path) -> dict[str, bytes]:
    """Return all files of a folder by their paths, but for the lock, which holds nothing; empty folders end in /."""
    return {
        f"{path.relative_to(folder)}{'/' * path.is_dir()}": b"" if path.is_dir() else path.read_bytes()
        for path in folder.rglob("*")
        if path.suffix != ".lock" and (path.is_file() or not any(path.iterdir()))
    }


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("atomic") / "clips"
    motion.write(folder, 2, 5)
    return folder


@dataclass
class Case:
    """A command that writes to a folder."""

    #: Puts there what was there before.
    before: Callable[[Path], None]
    act: Callable[[Path], None]
    #: Each file is the older one or the new one, not all of them.
    several: bool = False
    #: Files that say how fast it was.
    measured: tuple[str, ...] = ()
    #: Files that are there before all are, each as it will be.
    appended: tuple[str, ...] = ()
    #: It writes to a new folder only.
    anew: bool = False


def older(*names: str) -> Callable[[Path], None]:
    def before(folder: Path) -> None:
        for name in names:
            (folder / name).write_text("older")

    return before


def _page(clips: Path) -> Case:
    """A page of predictions that were saved."""
    saved = clips.parent / "saved.jsonl"
    if not saved.exists():
        command("eval", MODEL, "--data", clips, "--workers", 0, "--predictions", saved)
    return Case(older("page.html"), lambda folder: command("eval", saved, "--html", folder / "page.html"))


def _predictions(clips: Path) -> Case:
    """Two processes' predictions, brought together; appended as they come, and so no page of them is older or new."""
    _page(clips)
    header = predictions.read_header(clips.parent / "saved.jsonl")
    made = list(predictions.read(clips.parent / "saved.jsonl"))

    def act(folder: Path) -> None:
        for rank in (0, 1):
            store = Store(folder / "p.jsonl", header, [[each.video] for each in made], rank, 2)
            if rank not in store.done:
                store.append(made[rank : rank + 1])
        store.finish()

    return Case(older(), act, appended=("p.jsonl.0", "p.jsonl.1", "p.json", "p.jsonl"))


def _run(clips: Path) -> Case:
    def act(folder: Path) -> None:
        command("run", MODEL, clips / "videos" / "000000.mp4", "--save", folder / "v.mp4")

    return Case(older("v.mp4"), act, measured=("v.mp4",))


def _report(_: Path) -> Case:
    pictures = ("accuracy-somethingv2.svg", "accuracy-somethingv2.png")
    return Case(older(*pictures), lambda folder: command("report", folder), several=True)


def _kit_of_a_package(clips: Path) -> Case:
    model = clips.parent / "m.mlpackage"
    (model / "Data").mkdir(parents=True, exist_ok=True)
    (model / "Data" / "weights").write_bytes(b"abc")
    return _kit(clips, model, "coreml")


def _kit(clips: Path, model: Path | None = None, format_: str = "onnx") -> Case:
    def before(folder: Path) -> None:
        (folder / "kit").mkdir()

    entry = msgspec.structs.replace(ZOO.find(MODEL), size=32)
    contract = describe.describe(ZOO, load_network(entry, "random"), converter_of(Format(format_)))
    contract = msgspec.structs.replace(
        contract,
        artifact=f"m{Format(format_).suffix}",
        sha256="a" * 64,
        bytes=3,
        verification=Verification(status="passed", runtime="r", tolerance=1e-4),
    )
    vector = Vector(np.zeros((2, 3, 32, 32)), np.zeros((2, 14)), "nothing", "none", 1e-4)

    if model is None:
        (model := clips.parent / "m.onnx").write_bytes(b"abc")
    return Case(before, lambda folder: kit.write(folder / "kit", model, contract, vector), anew=True)


def _data(_: Path) -> Case:
    return Case(
        lambda folder: (folder / "new").mkdir(),
        lambda folder: command("data", "motion", folder / "new", "--videos", 2, "--seed", 7),
        anew=True,
    )


CASES = {
    "page": _page,
    "predictions": _predictions,
    "run": _run,
    "report": _report,
    "kit": _kit,
    "kit of a package": _kit_of_a_package,
    "data": _data,
}
#: Those that run a whole command for each call that may fail.
_COMMANDS = ("page", "run", "report", "data")


@pytest.mark.parametrize("how", ["fail", "end"])
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in _COMMANDS else name for name in CASES]
)
def test_any_call_may_fail_or_be_the_last(
    name: str, how: str, clips: Path, disk: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Calls are counted in this process.
    monkeypatch.setattr(motion, "ProcessPoolExecutor", lambda **_: ThreadPoolExecutor(1))
    few = msgspec.structs.replace(ZOO, models=tuple(e for e in ZOO.models if e.dataset in ("motion", "somethingv2")))
    monkeypatch.setattr(registry, "load", lambda *_: few)
    if name == "report":  # the same bytes, sooner
        picture = Figure()
        monkeypatch.setattr(plots, "draw", lambda *_: picture)
    case = CASES[name](clips)
    (whole := tmp_path / "whole").mkdir()
    case.before(whole)
    was = tree(whole)
    case.act(whole)
    new = tree(whole)
    assert new != was
    number, reached, seen = 0, True, set()
    while reached:
        folder = tmp_path / str(number)
        folder.mkdir()
        case.before(folder)
        error = ""
        try:
            reached = disk.run(lambda at=folder: case.act(at), **{how: number})
        except ZooError as caught:
            error = str(caught)
        assert not error or (str(tmp_path) in error and "No space left on device" in error)
        assert not (error and how == "end")
        found = tree(folder)
        kept = {path: content for path, content in found.items() if not path.startswith(".")}
        if how == "fail":
            assert kept == found, "something is left beside"
        for path in case.measured:
            if kept[path] != was[path]:
                frames = [time for time, _ in decode.decode(folder / path)]
                assert len(frames) == motion.FRAMES
                kept[path] = new[path]
        if case.appended:
            assert kept.keys() <= set(case.appended)
            lines = {new["p.jsonl"], *new["p.jsonl"].splitlines(keepends=True), b""}
            assert all(content in lines for path, content in kept.items() if path != "p.json")
            assert kept.get("p.json", new["p.json"]) == new["p.json"]
        elif case.several:
            assert all(content in (was.get(path), new[path]) for path, content in kept.items())
            assert was.keys() <= kept.keys()
        else:
            assert kept in (was, new)
        seen.add(kept == was)
        # Again, and it is as if nothing had happened.
        if not (case.anew and kept == new):
            case.act(folder)
        again = tree(folder)
        for path in case.measured:
            again[path] = new[path]
        assert again == new
        number += 1
    assert number > 3
    assert case.appended or True in seen
