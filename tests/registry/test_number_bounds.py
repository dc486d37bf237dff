"""Numbers beyond all reason, in a registry and in options: refused by name, in one line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from typer.testing import CliRunner

from tsmzoo import models, registry
from tsmzoo.artifact.contract import Case, Contract, Tensor, Verification
from tsmzoo.cli import app
from tsmzoo.errors import RegistryError, ZooError
from tsmzoo.inference.reference import resized
from tsmzoo.models.flops import count
from tsmzoo.registry import recipes

if TYPE_CHECKING:
    from pathlib import Path

ZOO = registry.load()
HUGE = (10**12, 10**400, 2**63, -1, 0, -(2**63))
ODD = (float("nan"), float("inf"), float("-inf"), 1e308, -1.0)


def own(tmp_path: Path, of: str = "tsm_mbv2_motion", **changes: Any) -> Path:
    """Write a registry of one entry, that of another model with changes; YAML's own words for what JSON lacks."""
    entry = {key: value for key, value in msgspec.to_builtins(ZOO.find(of)).items() if value not in (None, [])}
    entry |= {"id": "mine", "file": "mine.safetensors", "sha256": "0" * 64, "urls": []} | changes
    text = json.dumps({"models": [entry]})
    for json_, yaml_ in (("NaN", ".nan"), ("-Infinity", "-.inf"), ("Infinity", ".inf"), ("1e+308", "1.0e+308")):
        text = text.replace(json_, yaml_)
    path = tmp_path / "own.yaml"
    path.write_text(text)
    return path


INTEGERS = ("classes", "frames", "size", "shift_div", "shift_frames", "stride", "params")
FRACTIONS = ("width", "target_fps", "gmacs")


@pytest.mark.parametrize(
    ("key", "value"),
    [(key, value) for key in INTEGERS for value in HUGE] + [(key, value) for key in FRACTIONS for value in ODD],
    ids=lambda value: str(value)[:12],
)
def test_a_number_of_an_entry_is_bounded(key: str, value: float, tmp_path: Path) -> None:
    with pytest.raises(RegistryError) as caught:
        registry.load(own(tmp_path, **{key: value}))
    if abs(value) < 10**400:  # YAML's reader has its own word on the rest
        assert "entry 'mine': " in str(caught.value)
        assert key in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"states": [[1, 10**12, 1, 1]]},
        {"states": [[1, 0, 1, 1]]},
        {"states": [[1, 1, 1, 1]] * 1000},
        {"results": [{"protocol": None, "source": "x", "top1": 101}]},
        {"results": [{"protocol": None, "source": "x", "top5": float("nan")}]},
        {"results": [{"protocol": None, "source": "x", "frames": 10**12}]},
        {"published_gmacs": {"value": float("inf"), "source": "x"}},
        {"id": "a" * 200},
        {"file": "a\0b"},
        {"file": "a" * 2000},
        {"file": None, "urls": ["https://x/" + "a" * 201]},
        {"file": None, "urls": ["https://x/a\0b"]},
        {"file": None, "urls": ["https://[::1/a"]},
        {"file": None, "urls": ["https://x:99999/a"]},
        {"file": None, "urls": ["https://x/a"], "beside": ["a.sha256"]},
        {"file": None, "urls": ["https://x/a.part"]},
        {"frames": 256, "size": 2048},
    ],
    ids=str,
)
def test_what_else_an_entry_may_not_say(changes: dict[str, Any], tmp_path: Path) -> None:
    for command in ("list", "info"):
        result = CliRunner().invoke(app, [command, "mine", "--registry", str(own(tmp_path, **changes))])
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("mean", [*ODD[:4], 10**12])
@pytest.mark.parametrize("key", ["mean", "std"])
def test_a_normalisation_is_bounded(key: str, mean: float, tmp_path: Path) -> None:
    path = own(tmp_path, normalisation="odd")
    facts = {"order": "RGB", "mean": [0.5] * 3, "std": [0.5] * 3, "about": "odd"} | {key: [0.5, 0.5, mean]}
    text = json.dumps({"normalisations": {"odd": facts}} | json.loads(path.read_text()))
    path.write_text(text.replace("NaN", ".nan").replace("-Infinity", "-.inf").replace("Infinity", ".inf"))
    with pytest.raises(RegistryError, match=key):
        registry.load(path)


@pytest.mark.parametrize("zero", [0, -0.0, -1, 1e-300])
def test_a_deviation_is_no_nought(zero: float, tmp_path: Path) -> None:
    path = own(tmp_path, normalisation="odd")
    facts = {"order": "RGB", "mean": [0.5] * 3, "std": [0.5, 0.5, zero], "about": "odd"}
    path.write_text(json.dumps({"normalisations": {"odd": facts}} | json.loads(path.read_text())))
    with pytest.raises(RegistryError, match="std"):
        registry.load(path)


@pytest.mark.parametrize(
    ("of", "changes"),
    [
        ("tsm_mbv2_motion", {"width": 4, "classes": 65_536}),
        ("tsm_mbv2_motion", {"width": 1e-300, "shift_div": 64}),
        ("tsm_mbv2_motion_online", {"size": 32, "shift_div": 64}),
        ("i3d_r50_nl_dot_product_k400_32x2", {"classes": 65_536}),
    ],
)
@pytest.mark.slow
def test_the_largest_and_the_least_that_are_allowed_are_built(of: str, changes: dict[str, Any]) -> None:
    known = ZOO.by_id.get(of) or next(e for e in ZOO.models if e.non_local and e.family == "i3d")
    entry = msgspec.convert(msgspec.to_builtins(known) | changes, registry.Entry)
    assert models.classifier(models.build(entry))[1].out_features == entry.classes
    small = msgspec.structs.replace(entry, size=32, frames=1 if entry.mode == "online" else 8)
    assert count(small).mparams > 0


@pytest.mark.parametrize("name", ["i3d_r50_k400_32x2x1", "nl"])
def test_a_clip_that_no_memory_holds_is_refused(name: str) -> None:
    wanted = (lambda e: e.non_local) if name == "nl" else (lambda e: e.family == "i3d")
    entry = next(e for e in ZOO.models if wanted(e))
    for call in (
        lambda: resized(entry, 256, 2048),
        lambda: count(msgspec.structs.replace(entry, frames=256, size=2048)),
    ):
        with pytest.raises(ZooError, match=f"{entry.id}: clips of 256 frames of 2048 pixels are too large"):
            call()
    assert resized(entry, 8, 224).frames == 8
    result = CliRunner().invoke(app, ["flops", entry.id, "--size", "2048", "--frames", "256"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1


@pytest.mark.slow
def test_what_needs_no_memory_is_still_counted() -> None:
    """A 2-D network is counted by a frame, however many there are."""
    result = CliRunner().invoke(app, ["flops", "tsm_mbv2_motion", "--size", "512", "--frames", "256", "--json"])
    found = json.loads(result.stdout)
    assert found["gmacs_per_clip"] == pytest.approx(256 * found["gmacs_per_frame"])


# Options


RUN = ("run", "tsm_mbv2_motion_online", "none.mp4")
EVAL = ("eval", "tsm_mbv2_motion", "--data", ".")
EXPORT = ("export", "tsm_mbv2_motion", "--to", "onnx")
WHOLE = {
    RUN: ("--window", "--hold", "--seed"),
    EVAL: ("--clips", "--frames", "--workers", "--seed", "--split"),
    EXPORT: ("--keep-float", "--seed", "--size", "--frames"),
    ("verify", "none.onnx"): ("--steps",),
    ("bench", "tsm_mbv2_motion"): ("--runs", "--threads", "--seed", "--size", "--frames"),
    ("flops", "tsm_mbv2_motion"): ("--size", "--frames"),
    ("data", "motion", "none"): ("--videos", "--seed"),
    ("demo",): ("--videos",),
}
REAL = {RUN: ("--threshold", "--cut", "--reset-every", "--every", "--span", "--fps")}


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [
        *((command, option, value) for command in WHOLE for option in WHOLE[command] for value in (-1, 10**30)),
        *((command, option, value) for command in REAL for option in REAL[command] for value in (*ODD, 1e30)),
        *((EVAL, "--observe", value) for value in ("nan", "1e308", "-1", "inf")),
        *((EVAL, "--weights-of-scores", value) for value in ("nan", "1e308", "-1e308", "inf")),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0] if isinstance(value, tuple) else f"{value:g}",
)
def test_every_number_of_an_option_is_bounded(command: tuple[str, ...], option: str, value: object) -> None:
    result = CliRunner().invoke(app, [*command, f"{option}={value}"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert option in result.stderr


def test_no_number_is_without_bounds() -> None:
    """Whoever adds an option gives it bounds on both sides, and those of fractions keep NaN away, which is in none."""
    import typer

    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        for option in command.params:
            if option.type.name.startswith(("integer", "float")):
                bounds = (getattr(option.type, "min", None), getattr(option.type, "max", None))
                assert None not in bounds, f"{name} {option.opts}"
            assert not option.type.name.startswith("float") or option.callback is not None, f"{name} {option.opts}"


# Contracts


@pytest.mark.parametrize(
    ("key", "values"),
    {
        **dict.fromkeys(("classes", "size", "resize", "frames", "stride"), HUGE),
        "target_fps": (0, -1, 1e308),
        "seed": (-1, 2**64, 10**30),
        "bytes": (-1, 2**64),
        "mean": ([1e308] * 3, [-1e308] * 3),
        "std": ([0] * 3, [-1] * 3, [1e308] * 3, [1e-300] * 3),
    }.items(),
)
def test_a_number_of_a_contract_is_bounded(key: str, values: tuple[Any, ...]) -> None:
    kind = {field.name: field.type for field in msgspec.structs.fields(Contract)}[key]
    for value in values:
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(json.dumps(value), type=kind)
    good = {"mean": (0.5, 0, 0.5), "std": (0.2, 1, 0.2), "target_fps": 12.5, "seed": 2**63 - 1}.get(key, 224)
    assert msgspec.json.decode(json.dumps(good), type=kind) == good


@pytest.mark.parametrize("length", [0, -1, 2**31, 10**30])
def test_a_shape_of_a_contract_is_bounded(length: int) -> None:
    tensor = {"name": "x", "shape": [1, length], "dtype": "float32", "layout": "NC", "meaning": "x"}
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(json.dumps(tensor), type=Tensor)
    whole = msgspec.json.decode(json.dumps(tensor | {"shape": ["N", 2**31 - 1]}), type=Tensor)
    assert whole.shape == ("N", 2**31 - 1)


@pytest.mark.parametrize("steps", [0, -1, 10_001, 10**6, 10**12, 2**63 - 1, 10**400])
def test_the_steps_of_a_verification_are_bounded(steps: int) -> None:
    case = {"name": "noise", "steps": steps, "max_rel_error": 0.0}
    with pytest.raises(msgspec.MsgspecError):
        msgspec.json.decode(json.dumps(case), type=Case)
    for good in (1, 10_000):
        assert msgspec.json.decode(json.dumps(case | {"steps": good}), type=Case).steps == good


@pytest.mark.parametrize("tolerance", [0, -1, 1.001, 2, 1e30, 1e308, float("nan"), float("inf")])
def test_the_tolerance_of_a_verification_is_bounded(tolerance: float) -> None:
    report = {"status": "passed", "runtime": "r", "tolerance": tolerance}
    with pytest.raises(msgspec.MsgspecError):
        msgspec.json.decode(json.dumps(report), type=Verification)
    for good in (1e-6, 1.0):
        found = msgspec.json.decode(json.dumps(report | {"tolerance": good}), type=Verification)
        assert found.tolerance == good


@pytest.mark.parametrize("tolerance", [1.001, 1e30])
def test_a_recipe_sets_no_tolerance_that_no_contract_holds(tolerance: float, tmp_path: Path) -> None:
    target = msgspec.to_builtins(recipes.target("onnx"))
    path = tmp_path / "t.yaml"
    path.write_text(json.dumps(target | {"tolerance": {"fp32": tolerance}}), encoding="utf-8")
    with pytest.raises(ZooError, match=r"tolerance\["):
        recipes.target(str(path))
    path.write_text(json.dumps(target | {"tolerance": {"fp32": 1.0}}), encoding="utf-8")
    assert recipes.target(str(path)).tolerance == {"fp32": 1.0}
