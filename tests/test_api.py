"""The public names: what importing them costs, their types, and their examples."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
import yaml

import tsmzoo
from tsmzoo.data import motion
from tsmzoo.data.encode import encode

ERRORS = {name for name in tsmzoo.__all__ if name.endswith("Error")}
#: Results whose example is that of the function that returns them.
RETURNED = {
    "Answer": "watch",
    "BenchmarkRow": "benchmark",
    "CachedFile": "list_cache",
    "CheckpointInfo": "describe_checkpoint",
    "Cost": "count_flops",
    "Diagnosis": "doctor",
    "Download": "download",
    "EntryCheck": "check_registry",
    "EvaluationResult": "evaluate",
    "LinkCheck": "check_links",
    "Mirrored": "mirror",
    "ModelInfo": "model_info",
    "ModelRow": "model_table",
    "Pushed": "push",
    "TrainingResult": "train",
}
#: Their examples convert, train or time a network, or import every library.
SLOW = {"Artifact", "benchmark", "card", "doctor", "draw_accuracy", "export", "push", "train", "verify"}
QUICK = {"name": "quick", "model": "tsm_mbv2_motion", "weights": "random", "schedule": "cosine"}
QUICK |= {"epochs": 1, "batch": 7, "lr": 0.01, "frames": 4, "dropout": 0.0, "scales": [1.0], "hflip": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder that the examples run in: a video, two folders of labelled ones, a recipe."""
    folder = tmp_path_factory.mktemp("examples")
    frames, label = motion.scene(4, 3)
    assert motion.CLASSES[label] == "opening"
    encode(folder / "opening.mp4", frames, motion.FPS)
    for name, seed in (("clips", 4), ("more", 5)):
        motion.write(folder / name, 14, seed, lambda *_: None)
    shutil.copy(tsmzoo.model_info("tsm_mbv2_motion").file.path, folder / "own.safetensors")
    found = tsmzoo.describe_checkpoint(folder / "own.safetensors")
    (folder / "own.yaml").write_text(yaml.safe_dump(found.registry), encoding="utf-8")
    (folder / "quick.yaml").write_text(yaml.safe_dump(QUICK), encoding="utf-8")
    return folder


@pytest.fixture
def artifact(folder: Path) -> Callable[[], Path]:
    """Give a function that returns the file that some examples are about."""

    def make() -> Path:
        path = folder / "gestures.tflite"
        if not path.exists():
            tsmzoo.export("tsm_mbv2_motion_online", to="tflite", output=path)
        return path

    return make


def examples(name: str) -> list[doctest.DocTest]:
    """Return the examples of a public name, its methods' included; of "" those of the package."""
    shown = tsmzoo if not name else getattr(tsmzoo, name)
    names = {"tsmzoo": tsmzoo, "np": np, "torch": torch}
    finder = doctest.DocTestFinder(recurse=inspect.isclass(shown), exclude_empty=True)
    return [test for test in finder.find(shown, name or "tsmzoo", module=False, globs=names) if test.examples]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name
        for name in (
            "",
            *sorted({*tsmzoo.__all__} - {"__version__"} - (ERRORS - {"ZooError"}) - {*RETURNED, "ModelEntry"}),
        )
    ],
)
def test_examples(
    name: str, folder: Path, artifact: Callable[[], Path], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    if name in ("Artifact", "benchmark", "card", "export", "push", "verify"):
        pytest.importorskip("litert_torch")
    if name in ("Artifact", "benchmark", "card", "push", "verify"):
        artifact()
    monkeypatch.chdir(folder)
    tests = examples(name)
    assert tests, f"{name} has no example"
    for test in tests:
        results = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test)
        assert not results.failed, capsys.readouterr().out


@pytest.mark.parametrize("result", RETURNED)
def test_a_result_is_what_its_function_returns(result: str) -> None:
    returned = inspect.signature(getattr(tsmzoo, RETURNED[result])).return_annotation
    assert getattr(tsmzoo, result).__name__ in returned


def test_what_is_known_of_a_model_is_what_info_prints() -> None:
    """Each key of the document is an attribute, and so is each other one of the registry's entry."""
    info = tsmzoo.model_info("tsm_r50_sthv2")
    assert isinstance(info.entry, tsmzoo.ModelEntry)
    assert all(msgspec.to_builtins(getattr(info, key)) == value for key, value in info.document().items())
    assert info.headline == info.entry.headline
    with pytest.raises(AttributeError):
        info.nothing  # noqa: B018


@pytest.mark.parametrize("name", [None, Path("x"), 7])
def test_what_is_no_name_is_no_model(name: Any) -> None:
    with pytest.raises(tsmzoo.RegistryError, match=f"no model is called '{name}'"):
        tsmzoo.model_info(name)


def test_errors_go_from_one_process_to_another(folder: Path) -> None:
    contract = tsmzoo.load("tsm_mbv2_motion").contract
    error = pickle.loads(pickle.dumps(tsmzoo.VerificationError("differs", folder, contract)))
    assert (str(error), error.path, error.contract) == ("differs", folder, contract)


def test_public_methods_have_examples() -> None:
    """But for those that work on batches and states by hand, which say what they do in a line."""
    shown = {test.name for test in examples("Model")}
    assert {f"Model.{name}" for name in ("__call__", "classify", "normalize", "stream", "transform")} <= shown


def test_what_type_checkers_see_is_what_there_is() -> None:
    tree = ast.parse(Path(tsmzoo.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and isinstance(node.test, ast.Name))
    seen = {}
    for statement in block.body:
        assert isinstance(statement, ast.ImportFrom)
        for alias in statement.names:
            module = importlib.import_module(str(statement.module))
            seen[alias.asname or alias.name] = getattr(module, alias.name)
    assert seen == {name: getattr(tsmzoo, name) for name in tsmzoo.__all__ if name != "__version__"}
    assert set(tsmzoo.__all__) <= set(dir(tsmzoo))


def test_names_stay_when_packages_are_imported() -> None:
    """A package of the same name would take a function's place."""
    names = [name for name in tsmzoo.__all__ if name != "__version__"]
    packages = {path.parent.name for path in Path(tsmzoo.__file__).parent.glob("*/__init__.py")}
    assert not packages.intersection(names)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        tsmzoo.lode  # noqa: B018


def test_every_argument_is_documented() -> None:
    for name in tsmzoo.__all__:
        function = getattr(tsmzoo, name)
        if not inspect.isfunction(function):
            continue
        text = inspect.getdoc(function) or ""
        for parameter in inspect.signature(function).parameters:
            assert f"    {parameter}: " in text, f"{name}: {parameter}"
        assert "Raises:" in text, name


def test_every_user_error_is_public() -> None:
    assert {name for name in vars(importlib.import_module("tsmzoo.errors")) if name.endswith("Error")} == ERRORS


def test_import_waits_for_neither_torch_nor_numpy() -> None:
    script = (
        "import sys, time; start = time.perf_counter(); import tsmzoo; print(time.perf_counter() - start)\n"
        "tsmzoo.list_models('tsm_*'); tsmzoo.model_info('tsm_r50_sthv2'); print({'torch', 'numpy'} & set(sys.modules))"
    )
    runs = [
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60).stdout
        for _ in range(3)
    ]
    assert min(float(run.split()[0]) for run in runs) < 0.05
    assert runs[0].splitlines()[1] == "set()"


@pytest.mark.parametrize(
    "format_", [pytest.param("onnx", marks=pytest.mark.slow), pytest.param("tflite", marks=pytest.mark.slow)]
)
def test_a_file_runs_without_torch(format_: str, folder: Path) -> None:
    pytest.importorskip({"onnx": "onnxscript", "tflite": "litert_torch"}[format_])
    path = folder / f"alone.{format_}"
    tsmzoo.export("tsm_mbv2_motion", to=format_, output=path)
    script = (
        "import sys\n"
        "sys.modules['torch'] = None\n"  # whose import then fails
        "import numpy, tsmzoo\n"
        f"model = tsmzoo.load({str(path)!r})\n"
        f"print(model.classify({str(folder / 'opening.mp4')!r})[0].label)\n"
        "assert model.module is None\n"
        "with model.stream() as stream:\n"
        "    stream.step(numpy.zeros((64, 64, 3), 'uint8'))\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=300)
    assert (result.stdout, result.returncode) == ("opening\n", 0), result.stderr
