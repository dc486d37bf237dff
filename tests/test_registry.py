"""The data of registry.yaml against what it describes, and the schema against data that is wrong."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest
import yaml

from tsmzoo import models, paths, recipe, registry
from tsmzoo.errors import RegistryError
from tsmzoo.formats import Format
from tsmzoo.models.wrappers import state_shapes
from tsmzoo.registry import Entry
from tsmzoo.weights import cache

ZOO = registry.load()
DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
FACTS = paths.DATA.parent / "shared" / "facts" / "checkpoints.yaml"

#: Bundled models, architectures without weights, and published checkpoints.
TOTAL = 3 + 3 + 153

every_entry = pytest.mark.parametrize("entry", ZOO.models, ids=lambda entry: entry.id)


# --- the data ------------------------------------------------------------------------------------------------------


@functools.cache
def parameters(backbone: str, width: float, classes: int, channels: int, non_local: str | None, mit: bool) -> int:
    entry = next(
        e
        for e in ZOO.models
        if (e.backbone, e.width, e.classes, e.channels) == (backbone, width, classes, channels)
        and e.non_local == non_local
        and (not non_local or (e.format == "mit-tsm") == mit)
    )
    return sum(parameter.numel() for parameter in models.build(entry).parameters())


@every_entry
def test_parameters_are_those_of_the_network(entry: Entry) -> None:
    mit = entry.non_local is not None and entry.format == "mit-tsm"
    key = (entry.backbone, entry.width, entry.classes, entry.channels, entry.non_local)
    assert entry.params == parameters(*key, mit)


@every_entry
def test_states_are_those_of_the_network(entry: Entry) -> None:
    if entry.mode == "offline":
        assert entry.states == ()
    else:
        assert list(entry.states) == state_shapes(models.build(entry), entry.channels, entry.size)


@every_entry
def test_references_lead_somewhere(entry: Entry) -> None:
    for result in entry.results:
        if result.protocol:
            assert recipe.protocol(result.protocol).views > 0
        assert result.source
        figures = [figure for figure in (result.top1, result.top5, result.map) if figure is not None]
        assert figures
        assert all(0 < figure <= 100 for figure in figures)
        assert result.top1 is None or result.top5 is None or result.top1 <= result.top5
    names = ZOO.label_names(entry)
    if names is not None:
        assert len(names) == entry.classes == len(set(names))
        assert all(names)


@every_entry
def test_file_and_digest(entry: Entry) -> None:
    assert entry.max_bytes > 4 * entry.params
    if entry.file is not None:  # in the package
        assert not entry.urls
        assert entry.sha256
        assert Path(entry.file) == paths.PACKAGE / "bundled" / f"{entry.id}.safetensors"
        return
    if entry.filename is None:  # nobody published weights
        assert entry.format == "tsmzoo"
        return
    suffix = re.search(r"-([0-9a-f]{8})\.pth$", entry.filename)
    assert entry.sha256_prefix == (suffix and suffix[1])
    assert bool(suffix) == entry.source.startswith("mmaction2") or entry.backbone == "bninception"
    assert bool(entry.git_blob_sha1) == (entry.source in {"deepmind", "piergiaj", "hassony2"})
    assert entry.beside == (("model.ckpt.index",) if entry.source == "deepmind" else ())
    assert entry.sha256 is None or entry.sha256.startswith(entry.sha256_prefix or "")
    for url in entry.urls:
        assert urlsplit(url).scheme == "https"
        assert urlsplit(url).hostname in {
            "hanlab18.mit.edu",
            "www.dropbox.com",
            "download.openmmlab.com",
            "raw.githubusercontent.com",
            "dl.fbaipublicfiles.com",
        }


@every_entry
def test_input_fits_the_modality(entry: Entry) -> None:
    normalisation = ZOO.normalisations[entry.normalisation]
    assert len(normalisation.mean) == len(normalisation.std) == entry.channels
    assert (normalisation.order == "flow") == (entry.modality == "flow")
    assert all(0 < std <= 1 for std in normalisation.std)
    assert (entry.mode == "online") == (entry.sampling == "stream")
    assert (entry.format == "mit-tsm-online") == (entry.mode == "online" and entry.file is None)
    assert (entry.format == "tsmzoo") == (not entry.urls)
    assert entry.frames == 1 or entry.mode == "offline"
    assert entry.multi_label == entry.dataset.startswith(("multi_moments", "hvu_", "charades"))
    assert (normalisation.order == "BGR") == (entry.backbone == "bninception")
    assert entry.channels == (3 if entry.modality == "rgb" else 2 if entry.family == "i3d" else 10)
    if entry.family == "i3d":
        assert entry.stride == (None if entry.sampling == "uniform" else 64 // entry.frames)


def test_label_names_in_their_order() -> None:
    """What an index off by one, or the other of two orders, would change."""
    for key, index, name in (
        ("jester_sorted", 0, "Doing other things"),
        ("jester_sorted", 2, "No gesture"),
        ("jester_official", 0, "Swiping Left"),
        ("jester_official", 26, "Doing other things"),
        ("mit339", 0, "clapping"),
        ("mmit313", 0, "crafting"),
        ("k400", 0, "abseiling"),
        ("k400", 399, "zumba"),
    ):
        names = (paths.LABELS / f"{key}.txt").read_text(encoding="utf-8").splitlines()
        assert names[index].lower() == name.lower(), (key, index)
    v1, v2 = ((paths.LABELS / f"{key}.txt").read_text().splitlines() for key in ("sthv1_sorted", "sthv2"))
    assert v1[0].startswith("Approaching something with your camera")
    assert v2[0].startswith("Approaching something with your camera")
    official = (paths.LABELS / "sthv1_official.txt").read_text().splitlines()
    assert official[0].startswith("Holding something")
    assert sorted(official) == sorted(v1)


def test_labels_of_a_publisher() -> None:
    """MIT and mmaction2 order Something-Something V1 and Jester differently (checkpoint facts, § 14)."""
    for entry in ZOO.models:
        if entry.dataset in {"somethingv1", "jester"}:
            order = "sorted" if entry.source == "mit" else "official"
            assert entry.labels.endswith(order), entry.id


@pytest.mark.parametrize(
    ("name", "params", "classes", "frames"),
    [
        ("tsm_r50_k400_8f", 24_327_632, 400, 8),
        ("tsm_r50_k400_16f", 24_327_632, 400, 16),
        ("tsm_r50_sthv2", 23_864_558, 174, 8),
        ("tsm_r101_sthv2", 42_856_686, 174, 8),
        ("tsm_r50_nl_k400", 31_686_096, 400, 8),
        ("tsm_r50_k400_flow", 24_349_584, 400, 8),
        ("tsm_mbv2_k400", 2_736_272, 400, 8),
        ("tsm_mbv2_online", 2_258_459, 27, 1),
        ("tsn_r50_k400", 24_327_632, 400, 5),
        ("tsn_r50_k400_8f", 24_327_632, 400, 8),
        ("i3d_r50_k400_32x2", 28_043_472, 400, 32),
        ("i3d_inception_k400_rgb", 12_697_264, 400, 64),
        ("i3d_inception_k400_flow", 12_675_312, 400, 64),
    ],
)
def test_models_that_others_rely_on(name: str, params: int, classes: int, frames: int) -> None:
    entry = ZOO.find(name)
    assert (entry.params, entry.classes, entry.frames) == (params, classes, frames)
    assert entry.recommended


def test_aliases_lead_to_recommended_entries() -> None:
    assert len(ZOO.models) == TOTAL
    for alias, target in ZOO.aliases.items():
        assert ZOO.find(alias) is ZOO.find(target)
        assert ZOO.find(alias).recommended
        assert alias in ZOO.names(ZOO.find(target))


@pytest.mark.skipif(not FACTS.is_file(), reason="the facts lie beside the checkout only while it is being built")
def test_registry_is_complete_and_says_what_the_facts_say() -> None:
    facts = yaml.load(FACTS.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    listed = next(value for value in facts.values() if isinstance(value, list) and "id" in value[0])
    theirs = {f["id"]: f for f in listed if not f["backbone"].startswith("swin")}  # left out on purpose
    published = [entry for entry in ZOO.models if entry.urls]
    assert {entry.id for entry in published} == set(theirs)
    for entry in published:
        fact = theirs[entry.id]
        assert entry.params == fact["params_exact"], entry.id
        assert (entry.classes, entry.frames if entry.mode == "offline" else None, entry.labels) == (
            fact["num_classes"],
            fact.get("frames", 8) if entry.mode == "offline" else None,
            entry.dataset if fact["label_map"] == "hvu" else fact["label_map"],
        ), entry.id
        assert entry.backbone == ("resnet50_i3d_8x8" if entry.source == "pytorchvideo" else fact["backbone"]), entry.id
        assert entry.stride in {fact["sampling"]["interval"], None}, entry.id
        assert entry.non_local == (fact["non_local"] or {}).get("mode"), entry.id
        assert entry.git_blob_sha1 == fact.get("git_blob_sha1"), entry.id
        assert entry.sha256_prefix == fact.get("sha256_prefix"), entry.id
        assert entry.urls[0] == fact["url"], entry.id
        assert bool(entry.doubt) == bool(fact.get("doubtful")), entry.id
        assert [(r.top1, r.top5) for r in entry.results] == [(r.get("top1"), r.get("top5")) for r in fact["results"]], (
            entry.id
        )
    aliases = {a: t for a, t in facts["aliases"].items() if t in theirs} if "aliases" in facts else {}
    assert {alias: ZOO.find(alias).id for alias in aliases} == aliases


# --- finding -------------------------------------------------------------------------------------------------------


def test_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(RegistryError, match=r"no model is called 'tsm_r50_sthv3': did you mean .*tsm_r50_sthv2"):
        ZOO.find("tsm_r50_sthv3")
    with pytest.raises(RegistryError, match="tsmzoo list --all"):
        ZOO.find("zzzzzzzzzzzz")


def test_wildcards_go_through_ids_and_aliases() -> None:
    assert {entry.id for entry in ZOO.match("tsm_mbv2_*")} == {e.id for e in ZOO.models if "tsm_mbv2" in e.id}
    assert [entry.id for entry in ZOO.match("tsm_r50_sthv2")] == ["tsm_r50_sthv2_8f_mit"]  # an alias
    assert len(ZOO.match("*")) == TOTAL
    assert ZOO.match("TSM_*") == []
    assert all(entry.family == "tsn" for entry in ZOO.match("tsn_r*"))


def test_search_text_has_names_and_notes() -> None:
    text = ZOO.text(ZOO.find("tsn_r50_k400_kd"))
    for part in ("tsn_r50_k400_kd", "kinetics400", "resnet50", "OpenMMLab", "teacher TSN Swin"):
        assert part in text
    assert "tsm_r50_sthv2" in ZOO.text(ZOO.by_id["tsm_r50_sthv2_8f_mit"]).split()


def test_headline_prefers_a_figure_with_a_protocol() -> None:
    for entry in ZOO.models:
        if any(result.protocol for result in entry.results):
            assert entry.headline is not None
            assert entry.headline.protocol
        elif entry.results:
            assert entry.headline is entry.results[0]
        else:
            assert entry.headline is None


# --- a user's registry ---------------------------------------------------------------------------------------------

OWN: dict[str, Any] = {
    "id": "my_tsm",
    "family": "tsm",
    "mode": "offline",
    "backbone": "resnet50",
    "dataset": "mine",
    "classes": 400,
    "modality": "rgb",
    "frames": 8,
    "sampling": "uniform",
    "normalisation": "imagenet",
    "labels": "k400",
    "format": "mit-tsm",
    "source": "mit",
    "urls": ["https://example.org/files/mine.pth"],
    "licence": "MIT",
    "params": 24_327_632,
    "gmacs": 32.7036,
}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Put a registry of no entries, quick to read, in the project's place."""
    folder = tmp_path / "project"
    folder.mkdir()
    tables = {key: msgspec.to_builtins(getattr(ZOO, key)) for key in ("sources", "normalisations", "labels")}
    write(folder / "registry.yaml", tables)
    monkeypatch.setattr(paths, "DATA", folder)


def write(path: Path, data: Any) -> Path:
    path.write_text(yaml.dump(data, Dumper=DUMPER), encoding="utf-8")
    return path


def test_own_registry_on_top(tmp_path: Path) -> None:
    own = write(
        tmp_path / "own.yaml",
        {
            "models": [OWN, OWN | {"id": "tsm_mbv2_online", "labels": "cats", "classes": 2}],
            "labels": {"cats": {"classes": 2, "order": "cat, dog"}},
            "aliases": {"mine": "my_tsm", "tsm_r50_sthv2": "my_tsm"},
        },
    )
    zoo = registry.load(own)
    assert len(zoo.models) == TOTAL + 1
    assert zoo.find("mine").dataset == "mine"
    assert zoo.find("tsm_r50_sthv2").id == "my_tsm"
    assert zoo.find("tsm_mbv2_online").classes == 2
    assert zoo.label_names(zoo.find("tsm_mbv2_online")) is None
    assert zoo.find("tsm_r50_k400_8f") == ZOO.find("tsm_r50_k400_8f")
    again = write(tmp_path / "again.yaml", {"models": [OWN | {"dataset": "later"}]})
    assert registry.load(own, again).find("mine").dataset == "later"


@pytest.mark.parametrize("content", ["{}", "models:", "models: []", "labels: {}"])
def test_registry_without_entries(content: str, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(content)
    assert registry.load(path).models == ZOO.models


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/a.pth",
        "hf://owner/repo/a.safetensors",
        "http://localhost:8000/a.pth",
        "https://example.org/a.pth?dl=1",
    ],
)
def test_urls_that_are_taken(url: str, tmp_path: Path) -> None:
    """`?dl=1` asks Dropbox for the file and not for its page."""
    zoo = registry.load(write(tmp_path / "own.yaml", {"models": [OWN | {"urls": [url]}]}))
    assert zoo.find("my_tsm").filename == url.rsplit("/", 1)[1].removesuffix("?dl=1")


FILE: dict[str, Any] = {"urls": [], "file": "weights/mine.safetensors", "sha256": "0" * 64, "format": "tsmzoo"}


@pytest.mark.usefixtures("small")
def test_a_file_lies_beside_the_registry_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder, name in ((one, "my_tsm"), (other, "your_tsm")):
        folder.mkdir()
        write(folder / "own.yaml", {"models": [OWN | FILE | {"id": name}]})
    zoo = registry.load(one / "own.yaml", other / "own.yaml")
    for folder, name in ((one, "my_tsm"), (other, "your_tsm")):
        entry = zoo.find(name)
        assert Path(entry.file or "") == cache.local_path(entry) == folder / "weights" / "mine.safetensors"
        assert entry.filename == "mine.safetensors"
        assert entry.urls == ()
    # From where the command is called does not matter, nor do links; an absolute path is left as it is.
    monkeypatch.chdir(one)
    assert cache.local_path(registry.load(Path("own.yaml")).find("my_tsm")).resolve() == one / FILE["file"]
    monkeypatch.chdir(tmp_path)
    assert cache.local_path(registry.load(Path("one/own.yaml")).find("my_tsm")).resolve() == one / FILE["file"]
    write(one / "own.yaml", {"models": [OWN | FILE | {"file": str(other / "x.safetensors")}]})
    assert cache.local_path(registry.load(one / "own.yaml").find("my_tsm")) == other / "x.safetensors"


def test_files_of_the_package_stay_there_whatever_is_on_top(tmp_path: Path) -> None:
    zoo = registry.load(write(tmp_path / "own.yaml", {"models": [OWN | FILE]}))
    bundled = [entry for entry in ZOO.models if entry.file is not None]
    assert len(bundled) == 3
    for entry in bundled:
        assert zoo.find(entry.id) == entry
        assert Path(entry.file or "").is_relative_to(paths.PACKAGE)
    assert Path(zoo.find("my_tsm").file or "").is_relative_to(tmp_path)


@pytest.mark.usefixtures("small")
def test_an_entry_on_top_may_trade_a_file_for_urls_and_back(tmp_path: Path) -> None:
    file = write(tmp_path / "file.yaml", {"models": [OWN | FILE]})
    urls = write(tmp_path / "urls.yaml", {"models": [OWN]})
    assert registry.load(file, urls).find("my_tsm").filename == "mine.pth"
    assert registry.load(urls, file).find("my_tsm").filename == "mine.safetensors"


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("width", [0.35, 1, 1.4])
def test_a_width_is_taken(width: float, tmp_path: Path) -> None:
    own = write(tmp_path / "own.yaml", {"models": [OWN | {"backbone": "mobilenet_v2", "width": width}]})
    assert registry.load(own).find("my_tsm").width == width
    assert registry.load(write(tmp_path / "own.yaml", {"models": [OWN]})).find("my_tsm").width == 1


@pytest.mark.usefixtures("small")
def test_a_width_of_a_resnet_is_refused(tmp_path: Path) -> None:
    assert_refused(write(tmp_path / "own.yaml", {"models": [OWN | {"width": 0.5}]}), "'my_tsm'", "width")


@pytest.mark.usefixtures("small")
def test_a_model_without_published_weights_is_taken(tmp_path: Path) -> None:
    own = {key: value for key, value in OWN.items() if key != "urls"} | {"format": "tsmzoo"}
    entry = registry.load(write(tmp_path / "own.yaml", {"models": [own]})).find("my_tsm")
    assert not entry.has_weights
    assert (entry.filename, cache.local_path(entry), cache.local_paths(entry)) == (None, None, [])
    assert not cache.is_cached(entry)
    assert entry.max_bytes > 0


@pytest.mark.usefixtures("small")
def test_files_beside_a_checkpoint_are_taken(tmp_path: Path) -> None:
    own = OWN | {"beside": ["mine.index", "mine.meta"], "git_blob_sha1": "0" * 40}
    entry = registry.load(write(tmp_path / "own.yaml", {"models": [own]})).find("my_tsm")
    assert (entry.filename, entry.beside) == ("mine.pth", ("mine.index", "mine.meta"))
    assert [path.name for path in cache.local_paths(entry)] == ["mine.pth", "mine.index", "mine.meta"]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", ["../x", "..", ".", "a/b", "", "a b", "a?b", "x\n", 3])
def test_name_beside_a_checkpoint_that_is_no_files(name: Any, tmp_path: Path) -> None:
    assert_refused(write(tmp_path / "own.yaml", {"models": [OWN | {"beside": [name]}]}), "'my_tsm'", "$.beside[0]")


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in OWN.items() if name != key}


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param({"models": [OWN | {"colour": 3}]}, ("'my_tsm'", "colour"), id="unknown key"),
        *[
            pytest.param({"models": [without(key)]}, ("'my_tsm'", f"`{key}`"), id=f"no {key}")
            for key in OWN
            if key not in ("id", "urls")
        ],
        pytest.param({"models": [without("id")]}, ("number 1", "`id`"), id="no id"),
        pytest.param({"models": [OWN, "x"]}, ("number 2",), id="entry that is text"),
        pytest.param({"models": [OWN | {"classes": "many"}]}, ("'my_tsm'", "$.classes"), id="text for a number"),
        pytest.param({"models": [OWN | {"frames": 8.5}]}, ("'my_tsm'", "$.frames"), id="fraction of a frame"),
        pytest.param({"models": [OWN | {"family": "slowfast"}]}, ("'my_tsm'", "$.family", "slowfast"), id="family"),
        pytest.param({"models": [OWN | {"backbone": "vgg"}]}, ("'my_tsm'", "$.backbone", "vgg"), id="backbone"),
        pytest.param({"models": [OWN | {"format": "keras"}]}, ("'my_tsm'", "$.format", "keras"), id="format"),
        pytest.param({"models": [OWN | {"recommended": "yes"}]}, ("$.recommended",), id="text for a bool"),
        pytest.param({"models": [OWN | {"sha256": "abc"}]}, ("'my_tsm'", "$.sha256"), id="short digest"),
        pytest.param({"models": [OWN | {"sha256_prefix": "XYZ12345"}]}, ("$.sha256_prefix",), id="digest not hex"),
        pytest.param({"models": [OWN | {"git_blob_sha1": "0" * 64}]}, ("$.git_blob_sha1",), id="no git's digest"),
        pytest.param({"models": [OWN | {"results": [{"top1": 70}]}]}, ("$.results[0]", "`protocol`"), id="result"),
        pytest.param({"models": [OWN, OWN]}, ("'my_tsm'", "twice"), id="duplicate"),
        pytest.param({"models": [OWN | {"source": "nobody"}]}, ("'my_tsm'", "source", "'nobody'", "mit"), id="source"),
        pytest.param({"models": [OWN | {"labels": "cats"}]}, ("'my_tsm'", "labels", "'cats'"), id="labels"),
        pytest.param(
            {"models": [OWN | {"normalisation": "x"}]}, ("'my_tsm'", "normalisation", "'x'"), id="normalisation"
        ),
        pytest.param({"models": [OWN | {"labels": "sthv2"}]}, ("'my_tsm'", "classes 400", "174"), id="classes"),
        pytest.param({"models": [OWN | {"urls": []}]}, ("'my_tsm'", "urls", "file"), id="no url"),
        pytest.param({"models": [without("urls")]}, ("'my_tsm'", "urls", "file"), id="no urls, no file"),
        pytest.param(
            {"models": [OWN | FILE | {"urls": OWN["urls"]}]}, ("'my_tsm'", "urls", "file"), id="urls and file"
        ),
        pytest.param({"models": [OWN | FILE | {"sha256": None}]}, ("'my_tsm'", "file", "sha256"), id="file, no digest"),
        pytest.param(
            {"models": [OWN | FILE | {"sha256": None, "sha256_prefix": "0" * 8}]},
            ("'my_tsm'", "file", "sha256"),
            id="file, part of a digest",
        ),
        *[
            pytest.param(
                {"models": [without("urls") | {"format": "tsmzoo", key: value}]},
                ("'my_tsm'", "urls", "no digest"),
                id=f"no file, but its {key}",
            )
            for key, value in (("sha256", "0" * 64), ("sha256_prefix", "0" * 8), ("git_blob_sha1", "0" * 40))
        ],
        pytest.param({"models": [OWN | FILE | {"beside": ["x"]}]}, ("'my_tsm'", "beside", "urls"), id="beside a file"),
        *[
            pytest.param({"models": [OWN | {"beside": names}]}, ("'my_tsm'", "beside", "twice"), id=f"{names} beside")
            for names in (["mine.pth"], ["x", "x"])
        ],
        pytest.param({"models": [OWN | FILE | {"file": 3}]}, ("'my_tsm'", "$.file"), id="number for a file"),
        pytest.param({"models": [OWN | {"family": "i3d"}]}, ("'my_tsm'", "resnet50", "family i3d"), id="flat i3d"),
        pytest.param(
            {"models": [OWN | {"family": "tsn", "backbone": "resnet50_i3d"}]},
            ("'my_tsm'", "resnet50_i3d", "family tsn"),
            id="i3d of no family",
        ),
        *[
            pytest.param(
                {"models": [OWN | {"family": family, "backbone": backbone, "non_local": "gaussian"}]},
                ("'my_tsm'", "non_local", backbone),
                id=f"non-local {backbone}",
            )
            for family, backbone in (("tsm", "mobilenet_v2"), ("tsn", "densenet161"), ("i3d", "inception_v1_i3d"))
        ],
        pytest.param({"models": [OWN | {"width": 0}]}, ("'my_tsm'", "$.width"), id="no width"),
        pytest.param({"models": [OWN | {"width": "half"}]}, ("'my_tsm'", "$.width"), id="text for a width"),
        pytest.param({"models": OWN}, ("models", "list"), id="models as a mapping"),
        pytest.param({"aliases": {"nice": "nothing"}}, ("'nice'", "'nothing'"), id="alias to nothing"),
        pytest.param(
            {"models": [OWN], "aliases": {"my_tsm": "my_tsm"}}, ("'my_tsm'", "id already"), id="alias of an id"
        ),
        pytest.param({"aliases": ["a"]}, ("$.aliases",), id="aliases as a list"),
        pytest.param({"modells": []}, ("modells",), id="unknown table"),
        pytest.param({"labels": {"cats": {"classes": 2}}}, ("$.labels", "`order`"), id="labels without order"),
        pytest.param([OWN], ("mapping",), id="list"),
        pytest.param("text", ("mapping",), id="text"),
        pytest.param(None, ("mapping",), id="empty"),
    ],
)
def test_error_names_file_entry_and_key(data: Any, words: tuple[str, ...], tmp_path: Path) -> None:
    assert_refused(write(tmp_path / "own.yaml", data), *words)


def assert_refused(path: Path, *words: str) -> None:
    with pytest.raises(RegistryError) as caught:
        registry.load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    "name",
    ["../x", "..", ".", "a/b", "/etc", "-x", "a b", "", "a\nb", "ä", "a*", "x\n", "C:x", 3, None],
)
def test_id_that_is_no_folders_name(name: Any, tmp_path: Path) -> None:
    """An id names a folder of the cache and exported files."""
    assert_refused(write(tmp_path / "own.yaml", {"models": [OWN | {"id": name}]}), "$.id")


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.org/a.pth",
        "file:///etc/passwd",
        "/etc/passwd",
        "https://example.org/",
        "https://example.org",
        "https://example.org/a.pth?token=1",
        "https://example.org/?dl=1",
        "https://example.org/..?dl=1",
        "https://example.org/a.pth?dl=1&b",
        "https://example.org/a b.pth",
        "https://example.org/a.pth\n",
        "https://example.org/..",
        "https://example.org/x/.",
        "hf://..",
        "hf://owner/repo/..@main",
    ],
)
def test_url_that_names_no_file(url: str, tmp_path: Path) -> None:
    """The url's last part names the file in the cache."""
    assert_refused(write(tmp_path / "own.yaml", {"models": [OWN | {"urls": [url]}]}), "'my_tsm'")


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(b"models: [", ("not YAML", "line"), id="unclosed"),
        pytest.param(b"models:\n\t- id: x", ("not YAML", "line 2"), id="tab"),
        pytest.param(b"models: !!python/object/apply:os.system ['true']", ("not YAML",), id="code"),
        pytest.param(b"\xff\xff\x00\x01", ("not YAML",), id="bytes"),
        pytest.param(b"a: b: c", ("not YAML",), id="two colons"),
        pytest.param(b"models: 3", ("models", "list"), id="number"),
        pytest.param(b"1: 2", (), id="number as a key"),
        pytest.param(b"? [a, b]\n: 1", (), id="list as a key"),
        pytest.param(b"models: [{id: &x [*x]}]", (), id="cycle"),
    ],
)
def test_file_that_is_no_registry(content: bytes, words: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_bytes(content)
    assert_refused(path, *words)


@pytest.mark.usefixtures("small")
def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert_refused(tmp_path / "none.yaml", "cannot be read", "No such file")
    assert_refused(tmp_path, "cannot be read", "directory")


# --- recipes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted((paths.DATA / "recipes" / "eval").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_protocol_is_read_and_used(path: Path) -> None:
    assert recipe.protocol(path.stem).views > 0
    ours = any(result.protocol == path.stem for entry in ZOO.models for result in entry.results)
    # For models without figures: a user's own, and I3D.
    assert ours or path.stem.startswith(("dense_center", "mm_i3d"))


@pytest.mark.parametrize(("name", "format_"), [*((f, f) for f in Format), ("android", "tflite"), ("ios", "coreml")])
def test_every_target_is_read(name: str, format_: str) -> None:
    target = recipe.target(name)
    assert target.format == format_
    assert target.precision in target.tolerance
    assert target.tolerance["fp32"] <= 1e-4
    assert target.steps >= 16


@pytest.mark.parametrize(("read", "kind"), [(recipe.protocol, "eval"), (recipe.target, "export")])
@pytest.mark.parametrize("content", [None, "a: [", "[]", "views: many", "- 1", ""])
def test_recipe_that_is_wrong(
    read: Callable[[str], Any], kind: str, content: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(recipe, "RECIPES", tmp_path)
    path = tmp_path / kind / "x.yaml"
    path.parent.mkdir()
    if content is not None:
        path.write_text(content)
    with pytest.raises(RegistryError) as caught:
        read("x" if kind == "eval" else str(path))
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
