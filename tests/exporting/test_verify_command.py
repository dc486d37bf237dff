"""`verify`: a file that is untouched, changed, foreign or of other weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.exporting.exports import Quick, correct_digest, document_of, invoke, listing, refusal, sha256, write_video


@pytest.fixture
def copied(quick: Quick, tmp_path: Path) -> Path:
    shutil.copy(quick.path.with_suffix(".json"), tmp_path / "m.json")
    return shutil.copy(quick.path, tmp_path / "m.onnx")


def offset_of_largest_weight(path: Path) -> int:
    """Return where the highest byte, sign and exponent, of the first convolution's largest weight stands."""
    onnx = pytest.importorskip("onnx")
    tensor = next(t for t in onnx.load(path).graph.initializer if list(t.dims) == [32, 3, 3, 3])
    values = np.frombuffer(tensor.raw_data, "<f4")
    content = path.read_bytes()
    assert content.count(tensor.raw_data) == 1
    return content.find(tensor.raw_data) + 4 * int(np.abs(values).argmax()) + 3


def flip(path: Path, offset: int, bits: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= bits
    path.write_bytes(content)


def test_an_untouched_file_passes_again(copied: Path, tmp_path: Path) -> None:
    before = listing(tmp_path), sha256(copied)
    result = invoke("verify", copied, "--steps", 3, "--json")
    assert result.exit_code == 0, result.output
    document = document_of(result)
    assert document["passed"] is True
    assert document["artifact"] == str(copied)
    assert document["sha256"] == before[1]
    assert document["steps"] == 6
    assert 0 < document["max_rel_error"] <= 1e-4
    assert (listing(tmp_path), sha256(copied)) == before


def test_a_real_clip_joins_the_noise(copied: Path, tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.mp4", frames=5)
    result = invoke("verify", copied, "--steps", 2, "--clip", video)
    assert result.exit_code == 0, result.output
    assert "PASSED" in result.stdout
    assert "video, 5 frames" in result.stdout
    assert "is no file" in refusal(invoke("verify", copied, "--clip", tmp_path / "none.mp4"))


def test_one_flipped_bit_is_found(copied: Path) -> None:
    flip(copied, offset_of_largest_weight(copied), 1)
    assert "was changed since its export" in refusal(invoke("verify", copied, "--json"))


@pytest.mark.parametrize("bits", [0x01, 0x40], ids=["exponent", "to infinity"])
def test_a_flipped_bit_under_a_corrected_digest_is_found_by_the_numbers(copied: Path, bits: int) -> None:
    flip(copied, offset_of_largest_weight(copied), bits)
    correct_digest(copied)
    result = invoke("verify", copied, "--steps", 2, "--json")
    error = refusal(result)
    assert "failed its verification" in error
    assert "differs" in error
    document = document_of(result)
    assert document["passed"] is False
    assert document["verification"]["status"] == "failed"


def test_a_cut_file_is_refused(copied: Path) -> None:
    copied.write_bytes(copied.read_bytes()[:-1000])
    assert "was changed" in refusal(invoke("verify", copied))
    correct_digest(copied)
    error = refusal(invoke("verify", copied))
    assert str(copied) in error
    assert "no valid ONNX" in error


@pytest.mark.parametrize("content", [b"", b"not onnx", b"\x08\x0a"])
def test_what_is_no_onnx_file_is_refused(copied: Path, content: bytes) -> None:
    copied.write_bytes(content)
    correct_digest(copied)
    assert str(copied) in refusal(invoke("verify", copied))


def test_a_file_without_its_json_is_refused(copied: Path) -> None:
    copied.with_suffix(".json").unlink()
    for command in (["verify", copied], ["run", copied, "v.mp4"]):
        assert "m.json is not beside it" in refusal(invoke(*command))


def test_another_contract_beside_the_file_is_refused(copied: Path) -> None:
    beside = copied.with_suffix(".json")
    document = json.loads(beside.read_bytes())
    beside.write_text(json.dumps(document | {"mean": [0.5, 0.5, 0.5]}))
    assert "the contract inside it" in refusal(invoke("verify", copied))


def test_other_weights_than_random_ones_are_refused(copied: Path) -> None:
    assert "leave out --weights" in refusal(invoke("verify", copied, "--weights", "w.pth"))


def test_what_is_no_file_of_ours_is_refused(tmp_path: Path) -> None:
    assert "does not exist" in refusal(invoke("verify", tmp_path / "m.onnx"))
    (tmp_path / "m.txt").touch()
    assert "ends in none of" in refusal(invoke("verify", tmp_path / "m.txt"))


def test_weights_in_another_file_are_refused(copied: Path) -> None:
    onnx = pytest.importorskip("onnx")
    onnx.save_model(onnx.load(copied), copied, save_as_external_data=True, location="w.bin", size_threshold=1024)
    assert (copied.parent / "w.bin").stat().st_size > 8e6
    correct_digest(copied)
    error = refusal(invoke("verify", copied))
    assert "keeps weights in" in error
    assert "w.bin" in error


def test_a_constant_in_another_file_is_refused(copied: Path) -> None:
    """External data may hang on a node as well as on the graph."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(copied)
    (copied.parent / "w.bin").write_bytes(bytes(8))
    tensor = onnx.TensorProto(name="far", data_type=1, dims=[2], data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="w.bin")
    model.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["far"], value=tensor))
    copied.write_bytes(model.SerializeToString())
    correct_digest(copied)
    error = refusal(invoke("verify", copied))
    assert "keeps weights in" in error
    assert "w.bin" in error


def test_tensors_other_than_in_the_contract_are_named(copied: Path) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(copied)
    for node in model.graph.node:
        node.output[:] = ["renamed" if name == "next_state_3" else name for name in node.output]
        node.input[:] = ["renamed" if name == "next_state_3" else name for name in node.input]
    next(value for value in model.graph.output if value.name == "next_state_3").name = "renamed"
    onnx.save_model(model, copied)
    correct_digest(copied)
    error = refusal(invoke("verify", copied))
    assert "'next_state_3' is None" in error or "'renamed' is" in error
    assert "its contract says" in error
