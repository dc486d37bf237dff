"""`list`, `info`, `--help`: what they print, what they import, and how they fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tsmzoo import __version__, registry
from tsmzoo.catalog import info
from tsmzoo.cli import app
from tsmzoo.registry import paths
from tsmzoo.weights import cache

ZOO = registry.load()
LIST_KEYS = {
    *("id", "family", "mode", "backbone", "dataset", "frames", "gmacs", "mparams"),
    *("top1", "top5", "protocol", "source", "licence", "cached"),
}


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, prog_name="tsmzoo")


def output(*arguments: str) -> str:
    """Return what a command that must succeed prints; it says nothing beside it."""
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return result.stdout


def listed(*arguments: str) -> list[dict[str, Any]]:
    return json.loads(output("list", *arguments, "--json"))


def ids(*arguments: str) -> list[str]:
    return [row["id"] for row in listed(*arguments)]


def in_package(entry: registry.Entry) -> bool:
    """Say whether `entry` is one whose file comes with the package, and it did."""
    return entry.file is not None and Path(entry.file).is_file()


def assert_fails(result: Result, *words: str) -> None:
    """One line on stderr, `error: …`, nothing on stdout, exit 1."""
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit), "a traceback"
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    for word in words:
        assert word in result.stderr


def test_a_list_of_nothing_says_so() -> None:
    result = CliRunner().invoke(app, ["list", "--search", "no such thing"])
    assert (result.exit_code, result.stdout) == (0, "no model fits; `tsmzoo list --all` shows every one\n")


# --- start-up ------------------------------------------------------------------------------------------------------

HEAVY = {
    *("torch", "numpy", "rich", "onnx", "onnxruntime", "onnxscript", "coremltools", "litert_torch", "ai_edge_litert"),
    *("httpx2", "huggingface_hub", "av", "PIL", "fvcore", "safetensors", "tensorflow", "jax"),
}
SCRIPT = """
import sys
from tsmzoo.cli import main
sys.argv = ["tsmzoo", *sys.argv[1:]]
try:
    main()
finally:
    print("\\n", *sys.modules, file=sys.stderr)
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["export", "--help"],
        ["list"],
        ["list", "--all", "--json"],
        ["info", "tsm_mbv2_online"],
        ["info", "tsm_r50_sthv2", "--json"],
        ["info", "nonsense"],
    ],
    ids=" ".join,
)
def test_nothing_heavy_is_imported(arguments: list[str]) -> None:
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == (1 if "nonsense" in arguments else 0), result.stderr
    loaded = set(result.stderr.splitlines()[-1].split())
    assert "tsmzoo.cli" in loaded
    assert loaded & HEAVY == set()


@pytest.mark.parametrize("program", [["-m", "tsmzoo"], [str(Path(sys.executable).with_name("tsmzoo"))]])
def test_both_ways_to_start(program: list[str]) -> None:
    if program[0] != "-m" and not Path(program[0]).is_file():
        pytest.skip("the package is not installed here")
    command = [sys.executable, *program] if program[0] == "-m" else program
    result = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, f"tsmzoo {__version__}\n", "")


def test_output_into_a_closed_pipe() -> None:
    """`tsmzoo list | head -1` must not end in a traceback."""
    read, write = os.pipe()
    os.close(read)
    result = subprocess.run(
        [sys.executable, "-m", "tsmzoo", "list", "--all"],
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(write)
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("arguments", [["list"], ["info", "tsn_r101_k400"], ["list", "--json"]], ids=" ".join)
def test_output_where_stdout_is_not_utf8(arguments: list[str]) -> None:
    """Tables hold dashes beyond Latin-1, which must not end in a traceback."""
    result = subprocess.run(
        [sys.executable, "-m", "tsmzoo", *arguments],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": "latin-1"},
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr.decode()


# --- help and usage ------------------------------------------------------------------------------------------------


def test_help_names_every_command() -> None:
    text = output("--help")
    for command in ("list", "info", "download", "data", "train", "flops", "export", "verify", "eval", "run", "demo"):
        assert f"  {command} " in text
    assert output("-h") == text


@pytest.mark.parametrize("command", ["list", "info", "download", "train", "flops", "export", "verify", "eval", "run"])
def test_every_command_has_help_and_json(command: str) -> None:
    text = output(command, "--help")
    assert "--json" in text
    assert "--registry" in text


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["list", "--nonsense"],
        ["list", "a", "b"],
        ["list", "--family"],
        ["info"],
        ["info", "a", "b"],
        ["--nonsense"],
        ["download"],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_2(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    assert "Error" in result.stderr


def test_no_command_shows_help() -> None:
    result = run()
    assert "list" in result.output
    assert "Traceback" not in result.output


# --- list ----------------------------------------------------------------------------------------------------------


def test_json_keys() -> None:
    rows = listed("--all")
    assert len(rows) == len(ZOO.models)
    for row, entry in zip(rows, ZOO.models, strict=True):
        assert row.keys() >= LIST_KEYS
        assert row["id"] == entry.id
        assert row["mparams"] == pytest.approx(entry.params / 1e6, abs=1e-3)
        assert row["gmacs"] == entry.gmacs
        assert row["cached"] is in_package(entry)
        assert row["doubtful"] == bool(entry.doubt)


def test_json_of_one_model() -> None:
    (row,) = listed("tsm_r50_sthv2")
    assert {
        "id": "tsm_r50_sthv2_8f_mit",
        "family": "tsm",
        "mode": "offline",
        "backbone": "resnet50",
        "dataset": "somethingv2",
        "frames": 8,
        "gmacs": 32.6999,
        "mparams": 23.865,
        "source": "mit",
        "licence": "MIT",
    }.items() <= row.items()
    assert row["aliases"] == ["tsm_r50_sthv2"]
    assert 50 < row["top1"] < 70
    assert row["protocol"] in {path.stem for path in (paths.DATA / "recipes" / "eval").iterdir()}


def test_recommended_are_shown_unless_all_are_asked_for() -> None:
    few, every = ids(), ids("--all")
    assert set(few) < set(every)
    assert set(few) == {entry.id for entry in ZOO.models if entry.recommended}
    assert len(every) == len(set(every))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("family", "tsm"),
        ("family", "tsn"),
        ("mode", "online"),
        ("mode", "offline"),
        ("dataset", "somethingv2"),
        ("backbone", "mobilenet_v2"),
        ("backbone", "resnet101"),
        ("modality", "flow"),
    ],
)
def test_filters(option: str, value: str) -> None:
    wanted = [entry.id for entry in ZOO.models if getattr(entry, option) == value]
    assert wanted
    assert ids("--all", f"--{option}", value) == wanted


def test_filters_together() -> None:
    found = ids("--all", "--family", "tsm", "--backbone", "resnet50", "--dataset", "jester")
    assert "tsm_r50_jester_8f_mm0" in found
    wanted = ("tsm", "resnet50", "jester")
    assert found == [entry.id for entry in ZOO.models if (entry.family, entry.backbone, entry.dataset) == wanted]
    assert ids("--mode", "online", "--family", "tsn") == []


def test_exportable_keeps_what_can_be_exported() -> None:
    assert ids("--all", "--exportable") == [entry.id for entry in ZOO.models if entry.exportable]


@pytest.mark.parametrize("option", ["family", "mode", "dataset", "backbone", "modality"])
def test_filter_that_nothing_can_pass(option: str) -> None:
    known = sorted({getattr(entry, option) for entry in ZOO.models})
    assert_fails(run("list", f"--{option}", "nonsense"), "'nonsense'", *known)


def test_wildcard() -> None:
    found = ids("tsm_*_sthv2*")
    assert found
    assert found == [
        entry.id
        for entry in ZOO.models
        if any(name.startswith("tsm_") and "_sthv2" in name for name in (entry.id, *ZOO.names(entry)))
    ]
    assert "tsm_r50_sthv2_8f_mm0" in found, "a pattern goes through all, not the recommended alone"
    assert ids("nothing*") == []


def test_search() -> None:
    assert ids("--all", "--search", "TEACHER tsn swin") == ["tsn_r50_k400_kd"]
    assert "tsm_mbv2_online" in ids("--search", "jester")
    assert ids("--all", "--search", "no such words") == []


def test_piped_table_has_one_line_per_model() -> None:
    """Long lines stay whole, so that grep and awk can be used."""
    heading, _, *lines, _ = output("list", "--all").splitlines()
    assert len(lines) == len(ZOO.models)
    start = {column: heading.index(column) for column in ("dataset", "licence", "doubtful", "cached")}
    for line, entry in zip(lines, ZOO.models, strict=True):
        assert line.split()[0] == entry.id
        gmacs = f"{entry.gmacs:.2f}" if entry.gmacs >= 0.1 else f"{entry.gmacs:.2g}"  # of the smallest, no "0.00"
        assert {gmacs, f"{entry.mparams:.2f}", entry.mode} <= set(line.split())
        cached = "yes" if in_package(entry) else "–"
        for column, cell in (("dataset", entry.dataset), ("licence", entry.licence), ("cached", cached)):
            assert line[start[column] :].startswith(cell)
        assert line[start["doubtful"] :].startswith("yes") == bool(entry.doubt)
        assert "\x1b" not in line


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (
            "i3d_inception_k400_flow",
            "64 x 2 x 224 x 224 (T,C,H,W), x, y of a flow image, dense sampling at 25 frames a second\n",
        ),
        ("tsm_r50_k400_flow", "8 x 10 x 224 x 224 (T,C,H,W), five x, y flow images, uniform sampling\n"),
        ("i3d_r50_k400", "32 x 3 x 224 x 224 (T,C,H,W), RGB, dense sampling, one frame of 2\n"),
        ("tsn_bninception_k400", "8 x 3 x 224 x 224 (T,C,H,W), BGR, uniform sampling\n"),
        ("i3d_r50_replace_8f", "none: no weights were published"),
        ("i3d_inception_k600_rgb_scratch", "beside it  model.ckpt.index"),
        ("tsm_mbv2_motion_online", "RGB, stream sampling at 4 frames a second\n"),
        ("tsm_r50_k400_flow", "      note: the crop is presumed; the README does not say\n"),
        ("i3d_inception_k400_rgb", "1 clip of all frames, 300 at most, as one; OpenCV bilinear; centre crop"),
    ],
)
def test_card_of_i3d_and_of_the_other_backbones(model: str, words: str) -> None:
    assert words in output("info", model)


def test_last_line_counts_what_is_hidden() -> None:
    recommended = sum(entry.recommended for entry in ZOO.models)
    assert (
        output("list")
        .splitlines()[-1]
        .startswith(f"{recommended} models, {len(ZOO.models) - recommended} more with --all")
    )
    assert output("list", "--all").splitlines()[-1].startswith(f"{len(ZOO.models)} models;")


def test_cached_file_is_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TSMZOO_CACHE", str(tmp_path))
    path = cache.local_path(ZOO.find("tsm_r50_sthv2"))
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x")
    packaged = [entry.id for entry in ZOO.models if in_package(entry)]
    assert [row["id"] for row in listed("--all") if row["cached"]] == [*packaged, "tsm_r50_sthv2_8f_mit"]
    assert json.loads(output("info", "tsm_r50_sthv2", "--json"))["file"] == {
        "path": str(path),
        "cached": True,
        "max_bytes": ZOO.find("tsm_r50_sthv2").max_bytes,
    }


# --- info ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", ZOO.models, ids=lambda entry: entry.id)
def test_info_has_everything(entry: registry.Entry) -> None:
    found = info.info(ZOO, entry)
    text, source = info.text(found), ZOO.sources[entry.source]
    file = entry.urls or (Path(entry.file or "").name,)
    origin = (source.repository or source.name, source.citation, entry.licence)
    for part in (entry.id, *origin, *file, *entry.doubt, *entry.notes):
        assert part in text
    for result in entry.results:
        assert result.source in text
        assert f"top-1 {result.top1}" in text or f"mAP {result.map}" in text
    assert ("\n  doubtful\n" in text) == bool(entry.doubt)
    assert found.input.shape == [entry.frames, entry.channels, entry.size, entry.size]
    assert len(found.labels.names or ()) in {0, entry.classes}


def test_info_prints_the_text() -> None:
    """Of a doubtful entry, whose doubt must be seen."""
    entry = ZOO.find("tsn_r101_k400")
    document, text = json.loads(output("info", entry.id, "--json")), output("info", entry.id)
    assert text == info.text(info.info(ZOO, entry)) + "\n"
    assert document["doubt"] == list(entry.doubt) != []
    assert entry.doubt[0] in text


def test_info_of_an_online_model_tells_its_states() -> None:
    document = json.loads(output("info", "tsm_mbv2_online", "--json"))
    assert document["states"][0] == [1, 3, 56, 56]
    assert document["states"][-1] == [1, 20, 7, 7]
    assert len(document["states"]) == 10
    assert "1x3x56x56" in output("info", "tsm_mbv2_online")
    assert document["shift"] == "unidirectional"
    assert json.loads(output("info", "tsm_r50_sthv2", "--json"))["states"] == []


def test_info_takes_an_alias_and_shows_it() -> None:
    assert output("info", "tsm_r50_sthv2") == output("info", "tsm_r50_sthv2_8f_mit")
    assert output("info", "tsm_r50_sthv2").splitlines()[0] == "tsm_r50_sthv2_8f_mit (tsm_r50_sthv2)"


def test_info_explains_a_protocol() -> None:
    result = json.loads(output("info", "tsm_r50_k400_8f_dense", "--json"))["results"][0]
    assert result["protocol"] == "mit_dense10_fullres3"
    assert "10 clips of 8 frames" in result["measured"]
    assert "30 views" in result["measured"]


@pytest.mark.parametrize("command", ["info", "flops", "download"])
def test_unknown_model_gets_the_nearest(command: str) -> None:
    assert_fails(run(command, "tsm_r50_sthv22"), "'tsm_r50_sthv22'", "did you mean", "tsm_r50_sthv2")
    assert_fails(run(command, "qqqqqqqq"), "tsmzoo list --all")


# --- registries ----------------------------------------------------------------------------------------------------


def test_own_registry(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("aliases: {mine: tsm_mbv2_online}\n")
    assert ids("mine", "--registry", str(own)) == ["tsm_mbv2_online"]
    assert json.loads(output("info", "mine", "--registry", str(own), "--json"))["id"] == "tsm_mbv2_online"
    assert_fails(run("info", "mine"), "'mine'")


def test_wrong_registry_is_one_line(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    assert_fails(run("list", "--registry", str(own)), str(own), "cannot be read")
    own.write_text("models: [{id: x}]\n")
    assert_fails(run("list", "--registry", str(own)), str(own), "'x'", "family")
    own.write_text("models: [\n")
    assert_fails(run("info", "tsm_mbv2_online", "--registry", str(own)), str(own), "YAML")


@pytest.mark.parametrize("interrupted", [True, False])
def test_ctrl_c_is_one_whatever_a_library_makes_of_it(interrupted: bool) -> None:
    script = (
        "import os, signal, sys\nfrom tsmzoo.cli import _main\n"
        "def app(**_):\n"
        "    try:\n        os.kill(os.getpid(), signal.SIGINT) if sys.argv[1:] else 0\n"
        "    except KeyboardInterrupt:\n        pass\n"
        "    raise AttributeError('half imported')\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n_main.app = app\n_main.main()\n"
    )
    words = ["-c", script, *(["x"] if interrupted else [])]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == (130 if interrupted else 1)
    assert ("half imported" in done.stderr) == (not interrupted)
