"""Checkpoints of one's own, on every command: the shift that keys do not tell, other classes, a registry of them.

The bundled networks, respelt as MIT's trainer saves them, must answer as they are published.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
import yaml
from torch import Tensor
from typer.testing import CliRunner, Result

from tsmzoo import models, registry
from tsmzoo.artifact.store import read_contract
from tsmzoo.cli import app
from tsmzoo.data import motion
from tsmzoo.errors import CheckpointError, RegistryError
from tsmzoo.models.wrappers import StreamStep
from tsmzoo.training import train
from tsmzoo.weights.checkpoint import count_classes, load, save
from tsmzoo.weights.load import load_network

ZOO = registry.load()
ONLINE, OFFLINE = "tsm_mbv2_motion_online", "tsm_mbv2_motion"
#: Blocks of MobileNetV2 with a shortcut, which MIT shifts.
SHIFTED = (3, 5, 6, 8, 9, 10, 12, 13, 15, 16)

State = dict[str, Tensor]


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="tsmzoo")


def done(*arguments: object) -> Result:
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    return result


def refusal(*arguments: object) -> str:
    result = invoke(*arguments)
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    (error,) = result.stderr.splitlines()
    return error


def as_mits_trainer(state: State) -> State:
    """Our keys as mit-han-lab's main.py saves them, from DataParallel."""

    def flat(match: re.Match[str]) -> str:
        feature, unit, part = int(match[1]), int(match[2]), match[3]
        position = 3 * unit + int(part or 0) if part is not None else None
        last = 1 if feature == 1 else 2
        if position is None:  # the projection, and its batch norm behind it
            position = 3 * last + unit - last
        net = "net." if position == 0 and feature in SHIFTED else ""
        return f"features.{feature}.conv.{position}.{net}"

    found = {}
    for key, tensor in state.items():
        key = re.sub(r"^features\.([1-9]|1[0-7])\.conv\.(\d)\.(?:(\d)\.)?", flat, key)
        key = f"base_model.{key}" if not key.startswith("classifier.1.") else key.replace("classifier.1", "new_fc")
        found[f"module.{key}"] = tensor
    return found


@pytest.fixture(scope="module")
def uni(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled online network as MIT's trainer saves it."""
    state = load_network(ZOO.find(ONLINE)).backbone.state_dict()
    path = tmp_path_factory.mktemp("mit") / "uni_best.pth.tar"
    torch.save({"epoch": 25, "arch": "mobilenetv2", "state_dict": as_mits_trainer(state), "best_prec1": 93.1}, path)
    return path


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    motion.write(folder := tmp_path_factory.mktemp("data") / "clips", 14, 5)
    return folder


def answers(*arguments: object) -> list[Any]:
    lines = [json.loads(line) for line in done("run", *arguments, "--json").stdout.splitlines()]
    assert lines
    return [[(top["label"], round(top["probability"], 4)) for top in line["top5"]] for line in lines]


def video(clips: Path) -> Path:
    return sorted((clips / "videos").iterdir())[0]


# --- the shift -------------------------------------------------------------------------------------------------------


def test_a_unidirectional_file_of_mits_trainer_answers_as_itself(uni: Path, clips: Path) -> None:
    told = refusal("run", ONLINE, video(clips), "--weights", uni)
    assert "keys do not tell" in told
    assert "--shift uni" in told
    assert "--allow-shift-mismatch" in told
    found = invoke("run", ONLINE, video(clips), "--weights", uni, "--shift", "uni")
    assert found.exit_code == 0
    assert "BIDIRECTIONAL" not in found.stderr
    assert answers(ONLINE, video(clips), "--weights", uni, "--shift", "uni") == answers(ONLINE, video(clips))
    on_his_word = done("run", ONLINE, video(clips), "--weights", uni, "--allow-shift-mismatch")
    assert "BIDIRECTIONAL" in on_his_word.stderr


@torch.no_grad()
def test_a_unidirectional_file_gives_the_publishers_logits(
    parity: Callable[[str], dict[str, Any]],
    published: Callable[[str], Path],
    make_input: Callable[[tuple[int, ...], int], Tensor],
    tmp_path: Path,
) -> None:
    """MIT's online weights, under the names that their trainer gives them."""
    online, case = (
        torch.load(published("mit_tsm_mbv2_jester_online"), weights_only=True),
        parity("mit_tsm_mbv2_jester_online"),
    )
    names = [name for name, _, _ in parity("mit_tsm_mbv2_k400")["tensors"]]
    bare = {
        name: re.sub(r"module\.|base_model\.|(?<=\.)net\.", "", name).replace("new_fc", "classifier") for name in names
    }
    assert set(bare.values()) == online.keys()
    content = {
        "epoch": 25,
        "state_dict": {name: online[bare[name]] for name in names},
        "best_prec1": torch.tensor(93.1),
    }
    torch.save(content, path := tmp_path / "uni_best.pth.tar")
    network = load_network(ZOO.find("tsm_mbv2_online"), str(path), shift="uni")
    assert network.checkpoint is not None
    assert (network.checkpoint.format, network.checkpoint.shift_mismatch) == ("mit-tsm", False)
    step, states = StreamStep(network.backbone), [torch.zeros(shape) for shape in case["state_shapes"]]
    wanted = torch.tensor(case["logits"])
    for frame, row in zip(make_input(case["input"]["shape"], case["input"]["seed"])[0], wanted, strict=True):
        logits, *states = step(frame[None], *states)
        assert (logits[0] - row).abs().max() <= 1e-4 * (wanted.max() - wanted.min())


@pytest.mark.slow
def test_an_export_of_it_is_not_stamped_and_verifies(uni: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    path = tmp_path / "mine.onnx"
    done("export", ONLINE, "--to", "onnx", "--weights", uni, "--shift", "uni", "-o", path)
    checkpoint = read_contract(path).checkpoint
    assert checkpoint is not None
    assert (checkpoint.shift, checkpoint.shift_mismatch, checkpoint.format) == ("uni", False, "mit-tsm")
    assert json.loads(done("verify", path, "--steps", 2, "--json").stdout)["passed"]
    done("verify", path, "--steps", 2, "--weights", uni, "--shift", "uni")
    assert "trained with shift uni; leave out --shift" in refusal("verify", path, "--weights", uni, "--shift", "bi")
    assert "holds its own weights; leave out --shift" in refusal("run", path, "0", "--shift", "uni")


@pytest.mark.parametrize(
    ("model", "wrong"), [(OFFLINE, "uni"), (ONLINE, "bi"), ("tsn_mbv2_motion", "bi"), ("tsn_mbv2_motion", "uni")]
)
def test_a_claim_that_the_file_contradicts_is_refused(model: str, wrong: Any, tmp_path: Path) -> None:
    entry = ZOO.find(model)
    save(models.build(entry, seed=1), entry, path := tmp_path / "mine.safetensors")
    for into in (ONLINE, OFFLINE, "tsn_mbv2_motion"):
        net = models.build(ZOO.find(into))
        for allowed in (False, True):
            with pytest.raises(
                CheckpointError, match=f"was trained with .* shift, as it says itself; leave out shift {wrong}"
            ):
                load(net, ZOO.find(into), path, shift=wrong, allow_shift_mismatch=allowed)


def test_a_claim_says_which_model_fits(uni: Path) -> None:
    online, offline = ZOO.find(ONLINE), ZOO.find(OFFLINE)
    assert load(models.build(offline), offline, uni).shift is None, "an offline model is trusted"
    assert load(models.build(offline), offline, uni, shift="bi").shift == "bi"
    with pytest.raises(
        CheckpointError, match="trained with unidirectional shift, but tsm_mbv2_motion has bidirectional"
    ):
        load(models.build(offline), offline, uni, shift="uni")
    with pytest.raises(CheckpointError, match="is a bidirectional checkpoint, whose first channels"):
        load(models.build(online), online, uni, shift="bi")
    assert load(models.build(online), online, uni, shift="bi", allow_shift_mismatch=True).shift_mismatch
    with pytest.raises(CheckpointError, match="leave out --shift"):
        load_network(online, "random", shift="uni")


def test_mmaction2_has_one_direction(parity: Callable[[str], dict[str, Any]], tmp_path: Path) -> None:
    state = {key: torch.zeros(()).expand(shape) for key, shape, _ in parity("mmaction2_tsm_mbv2_k400")["tensors"]}
    torch.save({"state_dict": state}, path := tmp_path / "x.pth")
    entry = ZOO.find("tsm_mbv2_online")
    with pytest.raises(CheckpointError, match="was trained with bidirectional shift, as it says itself"):
        load(models.build(entry), entry, path, shift="uni")


# --- other classes, and a registry of one's own ----------------------------------------------------------------------


def five(uni: Path, tmp_path: Path) -> Path:
    content = torch.load(uni, weights_only=True)
    for name in ("weight", "bias"):
        content["state_dict"][f"module.new_fc.{name}"] = content["state_dict"][f"module.new_fc.{name}"][:5].clone()
    torch.save(content, path := tmp_path / "five.pth.tar")
    return path


def test_another_number_of_classes(uni: Path, clips: Path, tmp_path: Path) -> None:
    path = five(uni, tmp_path)
    given = (ONLINE, video(clips), "--weights", path, "--shift", "uni")
    told = refusal("run", *given)
    assert "but for its classifier, which has 5 classes: say --classes 5, or --labels FILE" in told
    (labels := tmp_path / "mine.txt").write_text("a\nb\nc\nd\ne\n")
    named = answers(*given, "--labels", labels)
    assert {label for top in named for label, _ in top} == set("abcde")
    numbered = answers(*given, "--classes", 5)
    assert [[chance for _, chance in top] for top in named] == [[chance for _, chance in top] for top in numbered]
    assert "has 5 names, and --classes says 6" in refusal("run", *given, "--labels", labels, "--classes", 6)
    assert "which has 5 classes" in refusal("run", *given, "--classes", 6)
    for text, word in (("a\n\nb\n", "line 2"), ("a\nb\na\n", "line 3"), ("", "empty"), ("a\x1b[2J\n", "line 1")):
        labels.write_text(text)
        assert word in refusal("run", *given, "--labels", labels)
    assert "cannot be read" in refusal("run", *given, "--labels", tmp_path)


@pytest.mark.slow
def test_a_registry_is_printed_and_serves(uni: Path, clips: Path, tmp_path: Path) -> None:
    (labels := tmp_path / "names.txt").write_text("\n".join(ZOO.label_names(ZOO.find(ONLINE)) or ()))
    printed = done("info", ONLINE, "--weights", uni, "--shift", "uni", "--labels", labels).stdout
    (mine := tmp_path / "mine.yaml").write_text(printed)
    (model,) = yaml.safe_load(printed)["models"]
    assert model["shift"] == "uni"
    assert (model["dataset"], model["source"], model["licence"]) == ("own", "own", "not stated"), "no made-up facts"
    assert "results" not in model
    held, own = ZOO.find(ONLINE), registry.load(mine).find("uni_best")
    same = ("mode", "backbone", "width", "classes", "frames", "size", "states", "params", "sampling", "target_fps")
    assert {name: getattr(own, name) for name in same} == {name: getattr(held, name) for name in same}
    assert own.gmacs == pytest.approx(held.gmacs)
    assert answers("uni_best", video(clips), "--registry", mine) == answers(ONLINE, video(clips))
    scores = [
        json.loads(done("eval", *which, "--data", clips, "--workers", 0, "--json").stdout)["top1"]
        for which in ((ONLINE,), ("uni_best", "--registry", mine))
    ]
    assert scores[0] == scores[1]
    document = json.loads(done("info", ONLINE, "--weights", uni, "--shift", "uni", "--json").stdout)
    assert (document["format"], document["classes"], document["shift"]) == ("mit-tsm", 14, ["unidirectional"])
    assert done("info", "uni_best", "--registry", mine).stdout.startswith("uni_best\n")


@pytest.mark.parametrize("name", ["x" * 240, "-" * 130 + "a", "folder\u3000of mine/übung (3), a'b: #c"])
def test_a_registry_of_an_odd_name_serves(name: str, uni: Path, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.pth.tar"
    path.parent.mkdir(exist_ok=True)
    os.link(uni, path)
    (mine := tmp_path / "mine.yaml").write_text(done("info", ONLINE, "--weights", path, "--shift", "uni").stdout)
    (model,) = yaml.safe_load(mine.read_text())["models"]
    assert registry.load(mine).find(model["id"]).file == str(path)


@pytest.mark.parametrize("name", ["a\nb\x1b[2J\x7f", os.fsdecode(b"a\xff"), "/".join(["y" * 200] * 6)])
def test_a_path_that_no_registry_can_hold_is_refused_by_name(name: str, uni: Path, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.pth.tar"
    path.parent.mkdir(parents=True, exist_ok=True)
    os.link(uni, path)
    told = refusal("info", ONLINE, "--weights", path, "--shift", "uni")
    assert "give the file another name or folder" in told
    assert told.isprintable()


def test_classes_are_bounded_alike(uni: Path, clips: Path) -> None:
    (bound,) = (meta.le for meta in registry.Classes.__metadata__)
    for number, said in ((bound, "which has 14 classes"), (bound + 1, f"1<=x<={bound}")):
        result = invoke("run", ONLINE, video(clips), "--weights", uni, "--shift", "uni", "--classes", number)
        assert result.exit_code == (1 if number == bound else 2)
        assert said in " ".join(re.sub(r"[│╭╮╰╯─]", "", result.stderr).split())


@pytest.fixture(scope="module")
def printed(uni: Path) -> str:
    return done("info", ONLINE, "--weights", uni, "--shift", "uni").stdout


@pytest.mark.parametrize("key", ["bi", "uni", "sideways"])
def test_the_registrys_key_is_checked(key: str, printed: str, tmp_path: Path) -> None:
    printed = yaml.safe_load(printed)
    printed["models"][0]["shift"] = key
    (mine := tmp_path / "mine.yaml").write_text(yaml.safe_dump(printed))
    if key == "sideways":
        with pytest.raises(RegistryError, match=r"Invalid enum value 'sideways' - at `\$\.shift`"):
            registry.load(mine)
        return
    entry = registry.load(mine).find("uni_best")
    if key == "uni":
        assert load_network(entry).checkpoint
        printed["models"][0] |= {"mode": "offline", "frames": 8, "sampling": "uniform", "states": []}
        mine.write_text(yaml.safe_dump(printed))
        with pytest.raises(RegistryError, match="shift uni is for mode online"):
            registry.load(mine)
    else:
        with pytest.raises(CheckpointError, match="is a bidirectional checkpoint"):
            load_network(entry)


def test_a_recipes_weights_of_other_classes_keep_all_but_the_classifier(uni: Path, tmp_path: Path) -> None:
    path = five(uni, tmp_path)
    entry = ZOO.find(ONLINE)
    assert count_classes(models.build(entry), entry, path) == 5
    recipe = msgspec.convert(
        {
            **{"name": "mine", "model": ONLINE, "weights": str(path), "epochs": 1, "batch": 2, "lr": 0.1},
            **{"schedule": "cosine", "scales": [1.0], "hflip": False, "frames": 8},
        },
        train.Training,
    )
    motion.write(folder := tmp_path / "clips", 14, 5)
    from tsmzoo.data import layouts

    motion.write(other := tmp_path / "others", 14, 6)
    listed, held_out = layouts.read(folder), layouts.read(other)
    net, trained = train._start(ZOO, recipe, listed, held_out, lambda *_: None, lambda _: None, "uni", False)
    assert trained.classes == 14
    wanted = load_network(entry).backbone.state_dict()
    for key, tensor in net.state_dict().items():
        if key.startswith("classifier."):
            assert tensor.shape[0] == 14
            assert not torch.equal(tensor, wanted[key])
        elif not key.endswith("num_batches_tracked"):
            assert torch.equal(tensor, wanted[key]), key


# --- nothing is said of what was published ---------------------------------------------------------------------------


def wrong(*arguments: object) -> str:
    """Return what is said of a command whose options do not fit together."""
    result = invoke(*arguments)
    assert result.exit_code == 2, result.output
    return " ".join(result.stderr.replace("│", " ").split())


@pytest.mark.parametrize("option", ["--classes", "--labels", "--shift"])
@pytest.mark.parametrize(
    "command",
    ["run {model} {clip}", "export {model} --to onnx -o {out}", "eval {model} --data {data}", "bench {model}"],
)
def test_published_weights_keep_their_classes_and_shift(command: str, option: str, clips: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("one\ntwo\n")
    value = {"--classes": 2, "--labels": labels, "--shift": "bi"}[option]
    places = {"model": ONLINE, "clip": video(clips), "out": tmp_path / "m.onnx", "data": clips}
    error = wrong(*(word.format(**places) for word in command.split()), option, value)
    assert f"leave out {option}" in error
    assert not (tmp_path / "m.onnx").exists()


@pytest.mark.parametrize(
    "option",
    [
        *("--weights=random", "--weights-format=tsmzoo", "--classes=2", "--labels=l", "--shift=uni"),
        *("--allow-shift-mismatch", "--data=.", "--list=l", "--protocol=x", "--clips=2", "--crops=1", "--frames=8"),
        "--predictions=p.jsonl",
    ],
)
def test_saved_predictions_take_no_option_of_a_model(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "l").write_text("one\ntwo\n")
    name = option.partition("=")[0]
    assert f"are scored as they are; leave out {name}" in wrong("eval", "p.jsonl", option)


def test_a_file_that_is_timed_holds_its_own_shift() -> None:
    assert "leave out --allow-shift-mismatch" in wrong("bench", "m.onnx", "--allow-shift-mismatch")
