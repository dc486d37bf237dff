"""The data of registry.yaml against what it describes. A new entry, of whatever publisher, passes as it is."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest
import yaml

from tsmzoo import models, registry
from tsmzoo.errors import RegistryError
from tsmzoo.models.wrappers import state_shapes
from tsmzoo.registry import Entry, paths, recipes

ZOO = registry.load()
FACTS = paths.DATA.parent / "shared" / "facts" / "checkpoints.yaml"

every_entry = pytest.mark.parametrize("entry", ZOO.models, ids=lambda entry: entry.id)


@functools.cache
def parameters(architecture: tuple[object, ...]) -> int:
    entry = next(e for e in ZOO.models if architecture_of(e) == architecture)
    return sum(parameter.numel() for parameter in models.build(entry).parameters())


def architecture_of(entry: Entry) -> tuple[object, ...]:
    return entry.backbone, entry.width, entry.classes, entry.channels, entry.non_local, entry.non_local_bias


@every_entry
def test_parameters_are_those_of_the_network(entry: Entry) -> None:
    assert entry.params == parameters(architecture_of(entry))


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
            assert recipes.protocol(result.protocol).views > 0
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
        assert Path(entry.file) == paths.PACKAGE / "weights" / "bundled" / f"{entry.id}.safetensors"
        return
    if entry.filename is None:  # nobody published weights
        assert entry.format == "tsmzoo"
        return
    suffix = re.search(r"-([0-9a-f]{8})\.pth$", entry.filename)
    assert entry.sha256_prefix == (suffix and suffix[1])
    assert entry.format != "deepmind-tf" or entry.beside == ("model.ckpt.index",)
    assert entry.sha256 is None or entry.sha256.startswith(entry.sha256_prefix or "")
    for url in entry.urls:
        assert urlsplit(url).scheme in {"https", "hf"}
        if urlsplit(url).hostname == "raw.githubusercontent.com":  # held to a commit, as a branch moves, and to content
            assert re.match(r"/[^/]+/[^/]+/[0-9a-f]{40}/", urlsplit(url).path)
            assert entry.git_blob_sha1 or entry.sha256


def test_every_mirror_is_of_use() -> None:
    """And none is of what the checkpoint facts call truncated: a copy in the root of a repository."""
    given = {url for entry in ZOO.models for url in entry.urls}
    for mirror in ZOO.mirrors:
        assert any(url.startswith(mirror.from_) for url in given), mirror.from_
        assert all(any(url.startswith(folder) for url in given) for folder in mirror.to)
    assert not [url for url in given if re.search(r"/[0-9a-f]{40}/mobilenetv2_jester_online", url)]


@every_entry
def test_input_fits_the_modality(entry: Entry) -> None:
    normalisation = ZOO.normalisations[entry.normalisation]
    assert len(normalisation.mean) == len(normalisation.std) == entry.channels
    assert (normalisation.order == "flow") == (entry.modality == "flow")
    assert all(0 < std <= 1 for std in normalisation.std)
    assert (entry.mode == "online") == (entry.sampling == "stream")
    assert (entry.stride is None) == (entry.sampling != "dense")
    assert entry.format != "mit-tsm-online" or entry.mode == "online"
    assert entry.multi_label or not entry.dataset.startswith(("multi_moments", "hvu_", "charades"))
    assert entry.multi_label or all(result.map is None for result in entry.results)


def test_caffes_networks_take_bgr() -> None:
    for name in ("tsn_bninception_k400", "tsm_bninception_k400_8f"):
        assert ZOO.normalisations[ZOO.find(name).normalisation].order == "BGR"


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
            order = {"mit": "sorted", "mmaction2": "official", "mmaction2_0x": "official"}.get(entry.source, "")
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


def test_entries_are_written_alike() -> None:
    """In the order of the schema, and without what is so anyway."""
    defaults = {field.encode_name: field.default for field in msgspec.structs.fields(Entry)} | {"classes": None}
    for item in registry.document(paths.DATA / "registry.yaml")["models"]:
        assert list(item) == [key for key in defaults if key in item], item["id"]
        assert not [key for key in item if key == "classes" or item[key] == defaults[key]], item["id"]


def test_every_entry_of_the_file_is_loaded() -> None:
    text = (paths.DATA / "registry.yaml").read_text(encoding="utf-8")
    assert [entry.id for entry in ZOO.models] == re.findall(r"^  - id: (.+)$", text, re.MULTILINE)


def test_aliases_lead_to_recommended_entries() -> None:
    for alias, target in ZOO.aliases.items():
        assert ZOO.find(alias) is ZOO.find(target)
        assert ZOO.find(alias).recommended
        assert alias in ZOO.names(ZOO.find(target))


@pytest.mark.skipif(not FACTS.is_file(), reason="the facts lie beside the checkout only while it is being built")
def test_registry_is_complete_and_says_what_the_facts_say() -> None:
    facts = yaml.load(FACTS.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    listed = next(value for value in facts.values() if isinstance(value, list) and "id" in value[0])
    theirs = {f["id"]: f for f in listed if not f["backbone"].startswith("swin")}  # left out on purpose
    for fact in theirs.values():
        entry = ZOO.by_id[fact["id"]]
        assert entry.params == fact["params_exact"], entry.id
        assert (entry.classes, entry.frames if entry.mode == "offline" else None, entry.labels) == (
            fact["num_classes"],
            fact.get("frames", 8) if entry.mode == "offline" else None,
            entry.dataset if fact["label_map"] == "hvu" else fact["label_map"],
        ), entry.id
        assert entry.backbone == ("resnet50_i3d_8x8" if entry.source == "pytorchvideo" else fact["backbone"]), entry.id
        assert entry.stride in {fact["sampling"]["interval"], None}, entry.id
        assert entry.non_local == (fact["non_local"] or {}).get("mode"), entry.id
        assert fact.get("git_blob_sha1") in {None, entry.git_blob_sha1}, entry.id
        assert entry.sha256_prefix == fact.get("sha256_prefix"), entry.id
        # Of a repository the facts name the branch.
        assert re.sub("/[0-9a-f]{40}/", "/master/", entry.urls[0]) == fact["url"], entry.id
        assert bool(entry.doubt) == bool(fact.get("doubtful")), entry.id
        assert [(r.top1, r.top5) for r in entry.results] == [(r.get("top1"), r.get("top5")) for r in fact["results"]], (
            entry.id
        )
    aliases = {a: t for a, t in facts["aliases"].items() if t in theirs} if "aliases" in facts else {}
    assert {alias: ZOO.find(alias).id for alias in aliases} == aliases


@pytest.mark.skipif(not FACTS.is_file(), reason="the facts lie beside the checkout only while it is being built")
def test_movinets_are_what_the_facts_say() -> None:
    """All but A3, A4 and A5, which are left out on purpose."""
    facts = yaml.load(FACTS.with_name("comparators.yaml").read_text(encoding="utf-8"), yaml.CSafeLoader)
    theirs = {f["id"]: f for f in facts["checkpoints"] if re.match("movinet_a[012]", f["id"])}
    assert theirs.keys() == {entry.id for entry in ZOO.models if entry.family == "movinet"}
    for fact in theirs.values():
        entry = ZOO.by_id[fact["id"]]
        for key in ("mode", "backbone", "dataset", "frames", "format", "source", "config", "normalisation"):
            assert getattr(entry, key) == fact[key], (entry.id, key)
        assert (entry.params, entry.size, entry.labels) == (
            fact["params_exact"],
            fact["input_size"],
            fact["label_map"],
        ), entry.id
        assert [entry.gmacs] == [value for key, value in fact["gmacs_computed"].items() if key != "view"], entry.id
        assert entry.published_gmacs is not None
        assert entry.published_gmacs.value == fact["published_gflops"]["value"], entry.id
        assert [(r.top1, r.top5, r.protocol) for r in entry.results] == [
            (r["top1"], r["top5"], r["protocol"]) for r in fact["results"]
        ], entry.id
        assert entry.git_blob_sha1 == fact.get("git_blob_sha1"), entry.id
        assert entry.urls[0].rpartition("/")[2] == fact["url"].rpartition("/")[2], entry.id
        assert bool(entry.doubt) == fact["doubtful"], entry.id
    aliases = {alias: target for alias, target in facts["aliases"].items() if target in theirs}
    assert {alias: ZOO.find(alias).id for alias in aliases} == aliases


@pytest.mark.skipif(not FACTS.is_file(), reason="the facts lie beside the checkout only while it is being built")
def test_x3ds_are_what_the_facts_say() -> None:
    facts = yaml.load(FACTS.with_name("comparators.yaml").read_text(encoding="utf-8"), yaml.CSafeLoader)
    theirs = {f["id"]: f for f in facts["checkpoints"] if f["family"] == "x3d"}
    assert theirs.keys() == {entry.id for entry in ZOO.models if entry.family == "x3d"}
    for fact in theirs.values():
        entry = ZOO.by_id[fact["id"]]
        for key in ("mode", "dataset", "frames", "format", "normalisation", "sha256_prefix"):
            assert getattr(entry, key) == fact.get(key), (entry.id, key)
        assert entry.params == fact["params_exact"], entry.id
        assert entry.stride == fact["sampling"]["interval"], entry.id
        assert entry.size == fact.get("train_size", entry.size), entry.id
        assert entry.gmacs == fact["gmacs_computed"][f"at_{entry.size}"], entry.id
        assert entry.backbone.endswith("_windowed") == (entry.format == "pytorchvideo"), entry.id
        published = (fact["url"], *fact.get("also_at", ()))  # mirrors follow
        assert entry.urls[: len(published)] == published, entry.id
        assert [(r.top1, r.top5) for r in entry.results] == [(r["top1"], r["top5"]) for r in fact["results"]], entry.id
    aliases = {alias: target for alias, target in facts["aliases"].items() if target in theirs}
    assert {alias: ZOO.find(alias).id for alias in aliases} == aliases


def test_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(RegistryError, match=r"no model is called 'tsm_r50_sthv3': did you mean .*tsm_r50_sthv2"):
        ZOO.find("tsm_r50_sthv3")
    with pytest.raises(RegistryError, match="tsmzoo list --all"):
        ZOO.find("zzzzzzzzzzzz")


def test_wildcards_go_through_ids_and_aliases() -> None:
    assert {entry.id for entry in ZOO.match("tsm_mbv2_*")} == {e.id for e in ZOO.models if "tsm_mbv2" in e.id}
    assert [entry.id for entry in ZOO.match("tsm_r50_sthv2")] == ["tsm_r50_sthv2_8f_mit"]  # an alias
    assert ZOO.match("*") == list(ZOO.models)
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
