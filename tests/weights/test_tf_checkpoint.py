"""DeepMind's checkpoints: read by a stand-in for TensorFlow, and by TensorFlow in an environment of its own."""

from __future__ import annotations

import functools
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from tests.weights.inception import DATA, INDEX, Arrays, State, deepmind, load_checkpoint, write
from tsmzoo import models, registry
from tsmzoo.errors import CheckpointError
from tsmzoo.registry import Entry
from tsmzoo.weights import checkpoint, checkpoint_file, tensorflow
from tsmzoo.weights import load as weight_load

ROOT = Path(__file__).resolve().parents[2]

ENTRY = Entry(
    id="i3d",
    family="i3d",
    mode="offline",
    backbone="inception_v1_i3d",
    dataset="kinetics400",
    classes=400,
    modality="rgb",
    frames=64,
    sampling="dense",
    stride=1,
    normalisation="",
    labels="",
    format="deepmind-tf",
    source="",
    urls=(f"https://example.org/{DATA}",),
    licence="",
    params=12_697_264,
    gmacs=111.33,
)


@functools.cache
def _weights(classes: int, channels: int) -> State:
    changes = {"classes": classes, "modality": {3: "rgb", 2: "flow"}[channels]}
    net = models.build(msgspec.structs.replace(ENTRY, **changes), seed=0)
    random = np.random.default_rng(7)
    return {
        key: torch.ones(tensor.shape)
        if key.endswith(".bn.weight")
        else torch.from_numpy(random.uniform(0.5, 1.5, tensor.shape).astype("float32"))
        for key, tensor in net.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }


#: What was published: of the first four checkpoints, and of Kinetics-600's.
LAYOUTS = {
    "rgb": (400, 3, "RGB/inception_i3d/", False, False),
    "flow": (400, 2, "Flow/inception_i3d/", False, False),
    "k600": (600, 3, "", True, True),
}


def layout(name: str) -> tuple[Entry, State, Arrays]:
    """Return the model of a layout, the weights it should get, and the variables of its checkpoint."""
    classes, channels, scope, wide, training = LAYOUTS[name]
    entry = msgspec.structs.replace(ENTRY, classes=classes, modality="flow" if channels == 2 else "rgb")
    state = _weights(classes, channels)
    return entry, state, deepmind(state, scope, wide=wide, training=training)


def test_the_published_checkpoints_have_as_many_variables() -> None:
    """As their index files list them."""
    assert [len(layout(name)[2]) for name in LAYOUTS] == [230, 230, 346 + 1]  # and a global_step


# --- with a stand-in for TensorFlow ----------------------------------------------------------------------------------


@pytest.fixture
def _tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    module = SimpleNamespace(train=SimpleNamespace(load_checkpoint=load_checkpoint))
    monkeypatch.setitem(sys.modules, "tensorflow", module)


stand_in = pytest.mark.usefixtures("_tensorflow")


def assert_loads(path: Path, entry: Entry, wanted: State) -> None:
    net = models.build(entry)
    loaded = checkpoint.load(net, entry, path)
    data = checkpoint_file.find_file(path)
    assert loaded == checkpoint.LoadedCheckpoint(hashlib.sha256(data.read_bytes()).hexdigest(), "deepmind-tf", False)
    got = {key: tensor for key, tensor in net.state_dict().items() if not key.endswith("num_batches_tracked")}
    assert got.keys() == wanted.keys()
    assert [key for key in wanted if not torch.equal(got[key], wanted[key])] == []


def refusal(path: Path, entry: Entry = ENTRY, **options: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(models.build(entry), entry, path, **options)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


@stand_in
@pytest.mark.parametrize("name", ["flow", pytest.param("k600", marks=pytest.mark.slow)])
def test_every_tensor_lands_where_it_belongs(name: str, tmp_path: Path) -> None:
    entry, wanted, arrays = layout(name)
    assert_loads(write(tmp_path, arrays), entry, wanted)


@stand_in
def test_a_checkpoint_goes_by_many_names(tmp_path: Path) -> None:
    entry, wanted, arrays = layout("rgb")
    folder = write(tmp_path / "rgb_imagenet", arrays)
    (folder / "model.ckpt.meta").write_bytes(b"the graph")
    (folder / "checkpoint").write_text('model_checkpoint_path: "model.ckpt"')
    for path in (folder, folder / "model.ckpt", folder / "model.ckpt.meta", folder / INDEX, folder / DATA):
        assert checkpoint_file.find_file(path) == folder / DATA
    assert_loads(folder / "model.ckpt", entry, wanted)

    # In a contract it goes by the file with the data; `verify` finds it again, however it was named.
    network = weight_load.load_network(entry, str(folder))
    assert network.checkpoint is not None
    assert (network.checkpoint.file, network.checkpoint.format) == (DATA, "deepmind-tf")
    for path in (folder, folder / "model.ckpt"):
        weight_load.record_checkpoint_path(network.checkpoint, str(path))
        assert weight_load.recorded_checkpoint_path(network.checkpoint) == str(folder / DATA)


@stand_in
def test_a_scale_of_its_own_is_kept(tmp_path: Path) -> None:
    entry, wanted, arrays = layout("rgb")
    scale = torch.rand(64)
    arrays["RGB/inception_i3d/Conv3d_1a_7x7/batch_norm/gamma"] = scale.numpy()
    assert_loads(write(tmp_path, arrays), entry, wanted | {"Conv3d_1a_7x7.bn.weight": scale})


@stand_in
@pytest.mark.slow
def test_another_network_is_refused_by_shapes(tmp_path: Path) -> None:
    flow, k600 = write(tmp_path / "flow", layout("flow")[2]), write(tmp_path / "k600", layout("k600")[2])
    stem = "Conv3d_1a_7x7.conv3d.weight (64, 2, 7, 7, 7) instead of (64, 3, 7, 7, 7)"
    assert f"of another shape: {stem}; nothing was loaded" in refusal(flow)
    assert "logits.weight (600, 1024) instead of (400, 1024)" in refusal(k600)
    tsn = msgspec.structs.replace(ENTRY, id="tsn", family="tsn", backbone="resnet50")
    assert "holds inception_v1_i3d, but tsn is resnet50" in refusal(flow, tsn)
    assert "unexpected: " in refusal(flow, weights_format="piergiaj-i3d")


@stand_in
def test_variables_that_fit_nowhere_are_refused(tmp_path: Path) -> None:
    entry, _, arrays = layout("rgb")
    adam = arrays | {
        "RGB/inception_i3d/Conv3d_1a_7x7/conv_3d/w/Adam": arrays["RGB/inception_i3d/Conv3d_1a_7x7/conv_3d/w"]
    }
    assert "unexpected: Conv3d_1a_7x7.conv3d/w/Adam" in refusal(write(tmp_path, adam), entry)
    stray = {
        key: array for key, array in arrays.items() if "Mixed_5b/Branch_2/Conv3d_0a_3x3/batch_norm/beta" not in key
    }
    assert "missing: Mixed_5b.b2b.bn.bias, Mixed_5b.b2b.bn.weight;" in refusal(write(tmp_path, stray), entry)
    assert "keys that fit none of the formats" in refusal(
        write(tmp_path, {"save/.ATTRIBUTES/VALUE": np.ones(3)}), entry
    )
    assert "holds no tensors" in refusal(write(tmp_path, {"global_step": np.int64(1)}), entry)


@stand_in
def test_an_index_that_promises_more_than_there_is_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path, {"one": np.ones(3, "float32"), "two/enormous": np.ones(3, "float32")})
    assert f"its index tells of {4 * 10**18 + 12} bytes, {DATA} has " in refusal(folder)


@stand_in
def test_files_that_are_missing_or_damaged_are_named(tmp_path: Path) -> None:
    arrays = layout("rgb")[2]
    folder = write(tmp_path / "a", arrays)
    (folder / INDEX).write_bytes(b"<html>")
    reason = "is damaged or not a TensorFlow checkpoint (not an sstable (bad magic number)); get it again"
    assert refusal(folder) == reason
    (folder / INDEX).unlink()
    for path in (folder, folder / DATA, folder / "model.ckpt"):
        assert f"lacks {INDEX}, which belongs to it" in refusal(path)
    (folder / INDEX).write_bytes(b"index")
    (folder / DATA).unlink()
    for path in (folder, folder / INDEX):
        assert f"lacks {DATA}" in refusal(path)
    (folder / DATA).write_bytes(b"")
    assert refusal(folder) == "is empty; download it again"

    for path in (tmp_path / "nowhere" / INDEX, tmp_path / "nowhere" / "model.ckpt"):
        assert "does not exist" in refusal(path)
    (tmp_path / "empty").mkdir()
    assert "is a directory; give the checkpoint file in it" in refusal(tmp_path / "empty")
    for name in ("step-100", "step-200"):
        for suffix in ("index", "data-00000-of-00001"):
            (tmp_path / f"{name}.{suffix}").write_bytes(b"x")
    assert refusal(tmp_path) == f"holds several checkpoints; give one of them, for instance {tmp_path / 'step-200'}"


def test_without_tensorflow_its_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    message = refusal(write(tmp_path, {"a": np.ones(1)}))
    assert message == (
        "is a TensorFlow checkpoint and needs tensorflow, which is not installed: pip install 'tsmzoo[tensorflow]'"
    )


def test_without_tensorflow_nothing_of_its_own_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_load, "find_spec", lambda _: None)
    monkeypatch.setattr(weight_load.download, "fetch", lambda *_, **__: pytest.fail("it was fetched"))
    entry = next(entry for entry in registry.load().models if entry.format == "deepmind-tf")
    with pytest.raises(CheckpointError, match=r"pip install 'tsmzoo\[tensorflow\]'"):
        weight_load.load_network(entry)


@pytest.mark.slow
def test_tensorflow_is_imported_by_what_reads_such_files_alone() -> None:
    code = "import sys, tsmzoo.cli, tsmzoo.weights.load; print('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


# --- with TensorFlow, in an environment that holds it alone ----------------------------------------------------------

#: Writes each folder's variables as DeepMind did, reads them with our module, and tells how damaged ones are refused.
WRITE_AND_READ = """
import json, sys
from pathlib import Path
import numpy as np
import tensorflow as tf

sys.path.insert(0, sys.argv[1])
from tsmzoo.weights import tensorflow as tf_checkpoint
from tsmzoo.errors import CheckpointError

INDEX, DATA = "model.ckpt.index", "model.ckpt.data-00000-of-00001"
v1 = tf.compat.v1
for folder in map(Path, sys.argv[2:]):
    with tf.Graph().as_default(), v1.Session() as session:
        for name, array in np.load(folder / "in.npz").items():
            v1.get_variable(name, initializer=array)
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(folder / "model.ckpt"))
    np.savez(folder / "out.npz", **tf_checkpoint.read(tf_checkpoint.data_file(folder)))

said = {}
for file, change in ((f, c) for f in (INDEX, DATA) for c in ("cut", "flipped", "html", "empty")):
    path = folder / file
    whole = path.read_bytes()
    flipped = whole[:1000] + bytes([whole[1000] ^ 1]) + whole[1001:]
    changed = {"cut": whole[: len(whole) // 2], "flipped": flipped, "html": b"<html>" * 50, "empty": b""}
    path.write_bytes(changed[change])
    try:
        tf_checkpoint.read(folder / DATA)
        said[f"{file} {change}"] = "nothing"
    except CheckpointError as error:
        said[f"{file} {change}"] = str(error)
    path.write_bytes(whole)
print(json.dumps(said))
"""


@pytest.mark.slow
def test_tensorflow_reads_what_tensorflow_wrote(
    environment: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = environment("-c", str(ROOT / "constraints.txt"), "tensorflow")
    folders = {name: tmp_path / name for name in LAYOUTS}
    for name, folder in folders.items():
        folder.mkdir()
        np.savez(folder / "in.npz", **layout(name)[2])
    command = [python, "-c", WRITE_AND_READ, ROOT, *folders.values()]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr

    for name, folder in folders.items():
        assert {INDEX, DATA, "model.ckpt.meta", "checkpoint"} <= {path.name for path in folder.iterdir()}
        entry, wanted, _ = layout(name)
        read = dict(np.load(folder / "out.npz"))
        monkeypatch.setattr(tensorflow, "read", {folder / DATA: read}.__getitem__)
        assert_loads(folder, entry, wanted)

    said = json.loads(result.stdout)
    assert len(said) == 8
    for what, message in said.items():
        assert message.startswith("is damaged or not a TensorFlow checkpoint ("), what
        assert "\n" not in message
