"""MoViNet's checkpoints as TensorFlow writes them, read by a stand-in for TensorFlow, and files that do not fit."""

from __future__ import annotations

import io
import re
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.weights.inception import DATA, INDEX, Arrays, State, load_checkpoint, write
from tsmzoo import models, registry
from tsmzoo.registry import Entry
from tsmzoo.weights import checkpoint

from .conftest import Case, assert_refused, hollow

ZOO = registry.load()
STREAM, BASE = "movinet_a0_stream_k600_tf", "movinet_a0_base_k600_tf"
VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
BACKBONE = "model/layer_with_weights-0/layer_with_weights-"
#: The publisher's names of the parts of a network, by ours (official/projects/movinet/modeling/movinet_layers.py).
PARTS = {
    r"^stem\.": f"{BACKBONE}0/_stem.",
    r"^head\.": f"{BACKBONE}16/_project.",
    r"^fc1\.": "model/layer_with_weights-1/_head.conv.",
    r"^fc2\.": "model/layer_with_weights-1/_classifier.conv.",
    r"\.alpha$": "/_mobile_bottleneck/_rezero/scale",
    r"\.expand\.": "/_expansion.",
    r"\.project\.": "/_projection.",
    r"\.shortcut\.": "/_skip/_projection.",
    r"\.se\.fc1\.": "/_attention/_se_reduce.conv.",
    r"\.se\.fc2\.": "/_attention/_se_expand.conv.",
    r"\.deep\.time\.weight": "/_feature/_conv_temporal/_conv/depthwise_kernel",
    r"\.deep\.space\.conv\.weight": "/_feature/_conv/_conv/depthwise_kernel",
    r"\.deep\.space\.norm\.": "/_feature.norm.",
}


def tensorflow_name(key: str, *, stream: bool) -> str:
    """Return the name of a variable as the publisher's code saves it (comparator facts, § 7.5)."""
    key = re.sub(r"^blocks\.(\d+)(?=\.)", lambda match: f"{BACKBONE}{int(match[1]) + 1}", key)
    for pattern, name in PARTS.items():
        key = re.sub(pattern, name, key)
    key = key.replace(".deep.norm.", "/_feature/_batch_norm_temporal/" if stream else "/_feature.norm.")
    key = key.replace(".deep.", "/_feature.").replace(".norm.", "/_batch_norm/")
    key = key.replace(".conv.weight", "/_conv/_conv/kernel" if stream else "/_conv/kernel")
    key = key.replace(".conv.bias", "/_conv/_conv/bias" if stream else "/_conv/bias")
    for ours, theirs in {
        "weight": "gamma",
        "bias": "beta",
        "running_mean": "moving_mean",
        "running_var": "moving_variance",
    }.items():
        key = re.sub(f"_batch_norm(_temporal)?/{ours}$", rf"_batch_norm\1/{theirs}", key)
    return key + VALUE


def variables(state: State, *, trained_in_3d: bool = False) -> Arrays:
    """Return a network's weights as TensorFlow has them; `trained_in_3d`: a stream's kernels as in training, 5-D."""
    stream = any(".deep.space." in key for key in state)
    out: Arrays = {}
    for key, tensor in state.items():
        array = tensor.numpy()
        if re.search(r"^fc\d\.weight", key):
            array = array[:, :, None, None]
        if array.ndim == 4 and (trained_in_3d or not stream):
            # A kernel of time stands as C, 1, reach, 1 here.
            array = array[..., None] if ".time." in key else array[:, :, None]
        if array.ndim == 5:
            array = array.transpose(2, 3, 4, 1, 0)
        elif array.ndim == 4:
            array = array.transpose((2, 3, 0, 1) if re.search(r"\.deep\.(space\.conv|time)\.", key) else (2, 3, 1, 0))
        out[tensorflow_name(key, stream=stream)] = array
    return out


def weights(entry: Entry) -> State:
    random = np.random.default_rng(7)
    return {
        key: torch.from_numpy(random.uniform(0.5, 1.5, tensor.shape).astype("float32"))
        for key, tensor in models.build(entry).state_dict().items()
        if not key.endswith("num_batches_tracked")
    }


def training(arrays: Arrays) -> Arrays:
    """What a training leaves beside the weights."""
    slots = {f"{name.removesuffix(VALUE)}/.OPTIMIZER_SLOT/optimizer/momentum{VALUE}": arrays[name] for name in arrays}
    return slots | {
        f"optimizer/learning_rate{VALUE}": np.float32(1),
        f"optimizer/iter{VALUE}": np.int64(7),
        f"save_counter{VALUE}": np.int64(1),
    }


def packed(path: Path, *members: tuple[str, bytes | str]) -> Path:
    """Write an archive of files, by name and content; a content of type str is a link's target."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                archive.addfile(member)
            else:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture(autouse=True)
def _tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    module = SimpleNamespace(train=SimpleNamespace(load_checkpoint=load_checkpoint))
    monkeypatch.setitem(sys.modules, "tensorflow", module)


def assert_loads(path: Path, entry: Entry, wanted: State) -> None:
    net = models.build(entry)
    assert checkpoint.load(net, entry, path).format == "tf-movinet"
    got = net.state_dict()
    assert [key for key in wanted if not torch.equal(got[key], wanted[key])] == []


@pytest.mark.parametrize("name", [STREAM, BASE])
def test_every_variable_lands_where_it_belongs(name: str, tmp_path: Path) -> None:
    entry = ZOO.find(name)
    wanted = weights(entry)
    arrays = variables(wanted)
    assert len(arrays) == len(wanted)
    assert_loads(write(tmp_path, arrays | training(arrays)), entry, wanted)


def test_a_stream_may_stand_as_it_was_trained_with_kernels_of_3d(tmp_path: Path) -> None:
    entry = ZOO.find(STREAM)
    wanted = weights(entry)
    arrays = {
        name.replace("depthwise_kernel", "kernel"): a for name, a in variables(wanted, trained_in_3d=True).items()
    }
    assert_loads(write(tmp_path, arrays), entry, wanted)


def test_an_archive_is_read_as_it_is(tmp_path: Path) -> None:
    entry = ZOO.find(BASE)
    wanted = weights(entry)
    folder = write(tmp_path / "a", variables(wanted))
    files = [(f"movinet_a0_base/{name}", (folder / name).read_bytes()) for name in (INDEX, DATA)]
    junk = [("movinet_a0_base/checkpoint", b"text"), (f"movinet_a0_base/._{INDEX}", b"of a Mac")]
    assert_loads(packed(tmp_path / "movinet_a0_base.tar.gz", *junk, *files), entry, wanted)
    # Nothing is written where an archive says.
    outside = [(f"{tmp_path}/out/{INDEX}", files[0][1]), (f"../../{DATA}", files[1][1])]
    assert_loads(packed(tmp_path / "outside.tar.gz", *outside), entry, wanted)
    assert {path.name for path in tmp_path.iterdir()} == {"a", "movinet_a0_base.tar.gz", "outside.tar.gz"}


def test_other_archives_are_refused(tmp_path: Path) -> None:
    files = [(INDEX, b"index"), (DATA, b"data")]
    for members, words in (
        ([("readme.txt", b"text")], "is an archive without a TensorFlow checkpoint"),
        ([(INDEX, "/etc/passwd"), (DATA, "/etc/passwd")], "is an archive without a TensorFlow checkpoint"),
        (files[:1], f"lacks {DATA}"),
        ([*files, ("b/" + INDEX, b"index")], "has two files of one name"),
        ([*files, ("b.index", b"index"), ("b.data-00000-of-00001", b"data")], "holds several checkpoints"),
        (files, "is damaged or not a TensorFlow checkpoint"),
    ):
        assert_refused(packed(tmp_path / "a.tar.gz", *members), BASE, words)
    whole = packed(tmp_path / "a.tar.gz", (INDEX, bytes(100_000)), (DATA, np.random.default_rng(0).bytes(100_000)))
    (tmp_path / "b.tar.gz").write_bytes(whole.read_bytes()[:50_000])
    (tmp_path / "c.tar.gz").write_bytes(b"\x1f\x8b" + bytes(100))
    for name in ("b.tar.gz", "c.tar.gz"):
        assert_refused(tmp_path / name, BASE, "is damaged or not a .tar.gz", "get it again")


@pytest.mark.parametrize(
    ("case", "model", "words"),
    [
        ("movinet_a0_stream_k600", BASE, "holds movinet_a0_stream, but movinet_a0_base_k600_tf is movinet_a0_base"),
        ("movinet_a0_base_k600", "movinet_a0_stream", "holds movinet_a0_base"),
        ("movinet_a1_stream_k600", "movinet_a0_stream", "holds movinet_a1_stream"),
        ("movinet_a1_base_k600", "movinet_a2_base", "holds movinet_a1_base"),
        ("movinet_a0_base_k600", "tsm_r50_k400_8f", "holds movinet_a0_base"),
    ],
)
def test_other_sizes_and_kinds_are_refused(case: str, model: str, words: str, parity: Case, tmp_path: Path) -> None:
    torch.save(hollow(parity(case)), path := tmp_path / "model.pth")
    assert_refused(path, model, words)


def test_a_larger_movinet_is_named(parity: Case, tmp_path: Path) -> None:
    state = hollow(parity("movinet_a0_base_k600"))
    state["classifier.0.conv_1.conv3d.weight"] = torch.zeros(1).expand(2048, 744, 1, 1, 1)  # A3's
    torch.save(state, path := tmp_path / "model.pth")
    assert_refused(path, "movinet_a0_base", "holds a MoViNet of another size than a0, a1, a2")


def test_a_stream_and_a_base_of_our_own_are_told_apart(tmp_path: Path) -> None:
    for name, other in ((STREAM, BASE), (BASE, STREAM)):
        entry = ZOO.find(name)
        checkpoint.save(models.build(entry, seed=1), entry, path := tmp_path / f"{name}.safetensors")
        assert checkpoint.load(models.build(entry), entry, path).format == "tsmzoo"
        assert_refused(path, other, f"holds {entry.backbone}")
