"""The classes of a kit: Kotlin compiled and run, Swift parsed."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from tests.exporting.kits import CASES, FLOW, OFFLINE, ONLINE, Toy, contract_of, written
from tsmzoo.artifact.arrays import feed
from tsmzoo.artifact.contract import Contract
from tsmzoo.data import sampling
from tsmzoo.inference.smoothing import decide, default_smoothing
from tsmzoo.live.pacing import FramePacer
from tsmzoo.typing import Array

KOTLIN = Path(__file__).parents[1] / "data" / "kotlin"


LABELS = ("costs $5", 'a "b" \\ c', "Ünïcode – ½", "${x}")


#: Kits by the name of their class: model, and what is changed.
KOTLIN_KITS: dict[str, tuple[str, dict[str, Any]]] = {
    "ByteFrames": (ONLINE, {"labels": LABELS, "classes": 4}),
    "FloatFrames": (ONLINE, {"preprocess": "external", "channel_order": "BGR", "mean": (0.1, 0.2, 0.3)}),
    "ByteClips": (OFFLINE, {}),
    "FlowClips": (FLOW, {"stride": 3, "sampling": "dense"}),
    "ManyLabels": (ONLINE, {"activation": "sigmoid"}),
}


def snippets(readme: Path, language: str) -> list[str]:
    """Return the code in a README."""
    found = re.findall(rf"^ *```{language}\n(.*?)^ *```$", readme.read_text("utf-8"), re.S | re.M)
    return [textwrap.dedent(code) for code in found]


def kotlin_contract(name: str) -> Contract:
    model, changes = KOTLIN_KITS[name]
    contract = contract_of(model, "tflite", model=name, **changes)
    if "classes" in changes:
        first = msgspec.structs.replace(contract.outputs[0], shape=(1, changes["classes"]))
        contract = msgspec.structs.replace(contract, outputs=(first, *contract.outputs[1:]))
    return contract


@pytest.fixture(scope="module")
def say(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Path | None], list[list[str]]]:
    """Give a function from the name of a kit, and what lies there in place of its vector, to what its class says."""
    kotlinc, java = shutil.which("kotlinc"), shutil.which("java")
    if not kotlinc or not java:
        pytest.skip("there is no kotlinc here (Debian: apt install kotlin)")
    folder = tmp_path_factory.mktemp("kotlin")
    sources = [str(path) for path in KOTLIN.glob("*.kt")]
    for name in KOTLIN_KITS:
        (folder / name).mkdir()
        made = written(folder / name, kotlin_contract(name))
        sources += map(str, made.glob("*.kt"))
        for code in snippets(made / "README.md", "kotlin"):
            if "import" in code:  # not the line of Gradle
                path = folder / name / "Readme.kt"
                path.write_text(f"package readme.{name.lower()}\n\n{code}", "utf-8")
                sources.append(str(path))
    jar = folder / "all.jar"
    command = [kotlinc, *sources, "-include-runtime", "-d", str(jar)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    # Unused things would be a sign of a template whose conditions do not fit.
    assert not [line for line in result.stderr.splitlines() if ".kt:" in line], result.stderr

    def run(name: str, vector: Path | None = None) -> list[list[str]]:
        assets = folder / name / "assets"
        if not assets.exists():
            assets.mkdir()
            for path in (*(folder / name / "kit" / "vector").iterdir(), folder / name / "kit" / "m.tflite"):
                shutil.copy(path, assets)
        command = [java, "-Dfile.encoding=UTF-8", "-cp", str(jar), "MainKt", name, str(vector or assets)]
        result = subprocess.run(command, capture_output=True, text=True, check=False, encoding="utf-8")
        assert result.returncode == 0, result.stderr
        return [line.split(" ", 1) for line in result.stdout.splitlines()]

    return run


def picture(number: int, size: int) -> Array:
    """Return what `picture` of Main.kt does: 3, H, W."""
    at = np.arange(size * size)
    top = 256 >> (number // 10 % 3)
    planes = [(number * 37 + at) % top, (number * 11 + 3 * at) % (top // 2), (number + 7 * at) % (top // 4)]
    return np.stack(planes).reshape(3, size, size).astype("uint8")


def toy_stream(contract: Contract, pixels: Iterator[Array]) -> Iterator[Array]:
    states = contract.initial_states()
    for frame in pixels:
        outputs = Toy(contract).run({contract.main_input.name: feed(frame[None], contract), **states})
        states = {pair.input: outputs[pair.output] for pair in contract.states}
        yield outputs["logits"][0]


@pytest.mark.slow
def test_kotlin_keeps_states_paces_and_decides(say: Callable[..., list[list[str]]]) -> None:
    contract = kotlin_contract("ByteFrames")
    said = say("ByteFrames")
    assert float(said[0][1]) <= 1e-5
    answers = [line[1] for line in said if line[0] == "answer"]
    wanted, decision = [], None
    smoothing = default_smoothing(contract.mode, contract.target_fps)
    for logits in toy_stream(contract, (picture(number, contract.size) for number in range(40))):
        decision = decide(smoothing, logits, decision)
        wanted.append((decision.shown, None if decision.shown is None else float(decision.odds[decision.shown])))
    assert len({shown for shown, _ in wanted}) >= 3, "else nothing was decided"
    for number, (shown, odds) in enumerate(wanted):
        for half in (answers[:40], answers[40:]):  # before a reset, and after
            _, index, rest = half[number].split(" ", 2)
            label, probability = rest.rsplit(" ", 1)
            assert index == ("null" if shown is None else str(shown))
            assert label == ("null" if shown is None else LABELS[shown])
            assert probability == "null" if odds is None else float(probability) == pytest.approx(odds, abs=1e-4)

    times = [*(number / 30 for number in range(60)), 9.0, 9.01, 9.3, 2.0, 2.01, 2.3, 20.0, 20.249, 20.4975]
    beat = FramePacer(contract.target_fps)
    assert said[-1] == ["due", " ".join("1" if beat.takes(time) else "0" for time in times)]


@pytest.mark.slow
def test_kotlin_normalises_where_the_file_does_not(say: Callable[..., list[list[str]]]) -> None:
    contract = kotlin_contract("FloatFrames")
    check, *answers = say("FloatFrames")
    assert float(check[1]) <= 1e-4
    frames = (picture(number, contract.size) for number in range(3))
    for (_, answer), logits in zip(answers, toy_stream(contract, frames), strict=True):
        assert f"index={logits.argmax()}," in answer


@pytest.mark.slow
def test_kotlin_takes_clips(say: Callable[..., list[list[str]]]) -> None:
    for name in ("ByteClips", "FlowClips"):
        contract = kotlin_contract(name)
        said = say(name)
        assert float(said[0][1]) <= 1e-4
        for _, line in (line for line in said if line[0] == "indices"):
            total, *indices = map(int, line.split())
            assert indices == sampling.clip(total, contract.frames, contract.stride)
    contract, said = kotlin_contract("ByteClips"), say("ByteClips")
    for number, (_, answer) in enumerate(line for line in said if line[0] == "answer"):
        clip = np.stack([picture(number + step, contract.size) for step in range(contract.frames)])
        logits = Toy(contract).run({"clip": feed(clip[None], contract)})["logits"][0]
        odds = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        assert (answer == "null") == (odds.max() < 0.5)
        assert answer == "null" or f"index={logits.argmax()}," in answer
    assert said[-1] == ["wrong", "a clip has 4 frames, not 0"]


@pytest.mark.slow
def test_kotlin_gives_each_of_many_labels_a_probability_of_its_own(say: Callable[..., list[list[str]]]) -> None:
    contract = kotlin_contract("ManyLabels")
    check, *answers = say("ManyLabels")
    assert float(check[1]) <= 1e-5
    assert contract.labels is not None
    shown = None
    frames = (picture(number, contract.size) for number in range(20))
    for (_, answer), logits in zip(answers, toy_stream(contract, frames), strict=True):
        odds = [1 / (1 + math.exp(-float(logit))) for logit in logits]
        shown = odds.index(max(odds)) if max(odds) >= 0.5 else shown
        assert (shown is None) == (answer == "null")
        if shown is not None:
            wanted, probability = f"Answer(index={shown}, label={contract.labels[shown]}, probability=", answer[:-1]
            assert answer.startswith(wanted)
            assert float(probability.removeprefix(wanted)) == pytest.approx(odds[shown], abs=1e-4)
    assert len({answer for _, answer in answers}) > 10


@pytest.mark.slow
@pytest.mark.parametrize("file", ["input.bin", "logits.bin"])
def test_kotlins_self_check_finds_another_vector(
    file: str, say: Callable[..., list[list[str]]], tmp_path: Path
) -> None:
    say("ByteClips")  # for its folder
    written(tmp_path, kotlin_contract("ByteClips"))
    vector = tmp_path / "kit" / "vector"
    content = (vector / file).read_bytes()
    half = len(content) // 3
    (vector / file).write_bytes(content[half:] + content[:half])
    shutil.copy(tmp_path / "kit" / "m.tflite", vector)
    with pytest.raises(AssertionError, match="this device computes something else"):
        say("ByteClips", vector)


PARSE = """
import sys
import tree_sitter, tree_sitter_swift

parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_swift.language()))
for path in sys.argv[1:]:
    pending = [parser.parse(open(path, "rb").read()).root_node]
    while pending:
        node = pending.pop()
        if node.type == "ERROR" or node.is_missing:
            sys.exit(f"{path}: {node.type} at line {node.start_point[0] + 1}: {node.text[:80]}")
        if node.type == "function_declaration":
            print(node.child_by_field_name("name").text.decode())
        pending += node.children
"""


@pytest.mark.slow
def test_swift_is_grammatical(environment: Callable[..., Path], tmp_path: Path) -> None:
    python = environment("tree-sitter==0.26.1", "tree-sitter-swift==0.7.4")
    sources = []
    for number, (model, to, changes) in enumerate(CASES.values()):
        if to == "coreml":
            (tmp_path / str(number)).mkdir()
            folder = written(
                tmp_path / str(number),
                contract_of(
                    model,
                    to,
                    **changes,
                ),
            )
            sources += map(str, folder.glob("*.swift"))
            (code,) = snippets(folder / "README.md", "swift")
            (folder / "Readme.swift").write_text(code, "utf-8")
            sources.append(str(folder / "Readme.swift"))
    (tmp_path / "parse.py").write_text(PARSE)
    result = subprocess.run([python, tmp_path / "parse.py", *sources], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert {"reset", "see", "run", "selfCheck", "isDue", "indices", "zeros"} <= set(result.stdout.split())
