"""`push`, `card`, and files taken from the hub, against a stand-in of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

import tsmzoo
from tests.artifact.hub import Hub, serving
from tests.artifact.made import copied
from tsmzoo.cli import app

REPO = "hf://me/toy"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with serving(monkeypatch, tmp_path) as server:
        yield server


@pytest.fixture
def toy(originals: Callable[[str], Path], tmp_path: Path) -> Path:
    return copied(originals("onnx"), tmp_path / "toy")


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(each) for each in arguments])


def pushed(path: Path) -> str:
    result = run("push", path, REPO, "--allow-random", "--json")
    assert result.exit_code == 0, result.stderr
    address: str = json.loads(result.stdout)["address"]
    return address


def refusal(*arguments: str | Path) -> str:
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (1, ""), result.output
    assert result.stderr.count("\n") == 1
    return result.stderr.removeprefix("error: ")


def answers(model: str | Path, frames: Path) -> list[dict[str, object]]:
    result = run("run", model, frames, "--json")
    assert result.exit_code == 0, result.stderr
    return [
        {key: value for key, value in json.loads(line).items() if not key.endswith("ms")}
        for line in result.stdout.splitlines()
    ]


def test_a_pushed_file_answers_as_the_one_here(
    hub: Hub, toy: Path, frames: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = pushed(toy)
    files = hub.repositories["me/toy"].commits[-1][1]
    assert len(hub.repositories["me/toy"].commits) == 2  # of the creation, and one of all files
    assert files["toy.onnx"] == toy.read_bytes()
    assert json.loads(files["toy.onnx.json"])["sha256"] in files["README.md"].decode()

    local = answers(toy, frames)
    for name in (f"{REPO}/toy.onnx", address):
        assert answers(name, frames) == local
    (row,) = tsmzoo.benchmark(address, runs=1)
    assert row.median_ms > 0
    monkeypatch.setenv("TSMZOO_OFFLINE", "1")
    hub.requests.clear()
    assert answers(f"{REPO}/toy.onnx", frames) == local
    assert hub.requests == []
    assert refusal("run", "hf://me/other/toy.onnx", frames) == (
        "hf://me/other/toy.onnx: is not in the cache, and TSMZOO_OFFLINE is set; unset it\n"
    )


def test_a_hub_that_is_down_is_one_line(hub: Hub, frames: Path) -> None:
    hub.shutdown()
    hub.server_close()
    assert refusal("run", f"{REPO}/toy.onnx", frames).startswith(f"{REPO}/toy.onnx: no connection to the hub (")


def test_a_package_is_a_folder_on_the_hub(hub: Hub, originals: Callable[[str], Path], tmp_path: Path) -> None:
    pytest.importorskip("coremltools")
    address = pushed(copied(originals("coreml"), tmp_path / "toy"))
    assert "toy.mlpackage/Manifest.json" in hub.repositories["me/toy"].commits[-1][1]
    assert run("card", address).exit_code == 0


def test_the_card_says_what_the_file_is(toy: Path) -> None:
    card = run("card", toy).stdout
    front = yaml.safe_load(card.split("---")[1])
    assert (front["license"], front["library_name"]) == ("mit", "tsmzoo")
    assert front["pipeline_tag"] == "video-classification"
    contract = json.loads(toy.with_suffix(".json").read_text())
    for word in (contract["sha256"], "random", "`next_state_0`", "mean 0.5", "No accuracy is known", "onnxruntime"):
        assert word in card


def test_the_readme_of_the_user_stays_and_ours_is_renewed(hub: Hub, toy: Path) -> None:
    pushed(toy)
    repository = hub.repositories["me/toy"]
    repository.add({"README.md": repository.commits[-1][1]["README.md"] + b"older\n"})
    pushed(toy)
    assert b"older" not in repository.commits[-1][1]["README.md"]
    repository.add({"README.md": b"mine"})
    result = run("push", toy, REPO, "--allow-random")
    assert "stays" in result.stderr
    assert repository.commits[-1][1]["README.md"] == b"mine"


@pytest.mark.parametrize("name", ["me/toy", "hf://toy", "hf://me/to y", "hf://me/toy/more", "hf://"])
def test_what_names_no_repository_is_refused(name: str, hub: Hub, toy: Path) -> None:
    assert "is no repository on the hub" in refusal("push", toy, name, "--allow-random")
    assert hub.requests == []


def test_a_password_in_an_address_is_not_shown(hub: Hub, toy: Path) -> None:
    for said in (
        refusal("card", "hf://me:hunter2@toy/toy.onnx"),
        refusal("push", toy, "hf://me:hunter2@toy", "--allow-random"),
    ):
        assert "hunter2" not in said
    assert hub.requests == []


def test_without_a_token_nothing_is_asked(hub: Hub, toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert "hf auth login" in refusal("push", toy, REPO, "--allow-random")
    assert hub.requests == []


def test_a_wrong_token_is_one_line(hub: Hub, toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    said = refusal("push", toy, REPO, "--allow-random")
    assert "HTTP 401" in said
    assert "hf_wrong" not in said
    assert hub.repositories == {}


def test_no_permission_is_one_line(hub: Hub, toy: Path) -> None:
    hub.writable = False
    assert "HTTP 403" in refusal("push", toy, REPO, "--allow-random")
    assert hub.repositories == {}


def test_a_network_that_ends_in_the_commit_leaves_nothing(hub: Hub, toy: Path) -> None:
    hub.hangs_up = True
    assert "was not pushed as far as is known" in refusal("push", toy, REPO, "--allow-random")
    assert len(hub.repositories["me/toy"].commits) == 1
    hub.hangs_up = False
    pushed(toy)


def test_a_public_repository_gets_nothing_private(hub: Hub, toy: Path) -> None:
    pushed(toy)
    assert "is public already" in refusal("push", toy, REPO, "--private", "--allow-random")
    assert len(hub.repositories["me/toy"].commits) == 2
    assert run("push", toy, "hf://me/secret", "--private", "--allow-random").exit_code == 0
    assert hub.repositories["me/secret"].private


def test_random_weights_and_changed_files_are_not_pushed(hub: Hub, toy: Path) -> None:
    assert "--allow-random" in refusal("push", toy, REPO)
    toy.write_bytes(toy.read_bytes() + b" ")
    assert "was changed since its export" in refusal("push", toy, REPO, "--allow-random")
    assert hub.requests == []


def test_a_file_that_was_changed_on_the_hub_is_not_run(hub: Hub, toy: Path, frames: Path) -> None:
    pushed(toy)
    hub.repositories["me/toy"].add({"toy.onnx": toy.read_bytes() + b" "})
    assert "was changed since its export" in refusal("run", f"{REPO}/toy.onnx", frames)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("hf://me/toy/other.onnx", "no such file"),
        ("hf://me/toy/toy.onnx@nowhere", "HTTP 404"),
        ("hf://me/none/toy.onnx", "HTTP 404"),
        ("hf://me/toy.onnx", "is no exported file"),
        ("hf://me/toy/../toy.onnx", "is no exported file"),
    ],
)
@pytest.mark.parametrize("command", ["run", "verify"])
@pytest.mark.usefixtures("hub")
def test_what_the_hub_lacks_is_one_line(command: str, address: str, said: str, toy: Path, frames: Path) -> None:
    pushed(toy)
    assert said in refusal(command, address, *([frames] if command == "run" else []))


@pytest.mark.slow
@pytest.mark.usefixtures("hub")
def test_verify_and_eval_take_files_of_the_hub(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    tsmzoo.export("tsm_mbv2_motion_online", to="onnx", output=tmp_path / "g.onnx")
    address = tsmzoo.push(tmp_path / "g.onnx", REPO).address
    assert tsmzoo.verify(address, steps=4).passed
    tsmzoo.generate_clips(tmp_path / "clips", 14, seed=4)
    here, there = (tsmzoo.evaluate(model, tmp_path / "clips") for model in (tmp_path / "g.onnx", address))
    assert (there.top1, there.videos) == (here.top1, 14)
