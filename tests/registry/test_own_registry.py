"""A user's registry on top of tsmzoo's own: what is taken, what is refused, and what the error says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from tsmzoo import registry
from tsmzoo.errors import RegistryError
from tsmzoo.registry import paths
from tsmzoo.weights import cache

ZOO = registry.load()
DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

URL = "https://elsewhere.example/mine.pth"
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
            "models": [OWN, OWN | {"id": "tsm_mbv2_online", "labels": "own-cats", "classes": 2}],
            "labels": {"own-cats": {"classes": 2, "order": "cat, dog"}},
            "aliases": {"mine": "my_tsm", "tsm_r50_sthv2": "my_tsm"},
        },
    )
    zoo = registry.load(own)
    assert len(zoo.models) == len(ZOO.models) + 1
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


NEAR, FAR = "https://near.example/copies/", "https://far.example/a/b/"


@pytest.mark.usefixtures("small")
def test_mirrors_follow_the_urls_of_an_entry(tmp_path: Path) -> None:
    """Those of a later registry, which serve the entries of an earlier one, come before those of that."""
    far = {"from": "https://example.org/files/", "to": [FAR], "tested": False, "note": "perhaps"}
    one = write(tmp_path / "one.yaml", {"models": [OWN, OWN | {"id": "other", "urls": [URL]}], "mirrors": [far]})
    zoo = registry.load(one)
    assert zoo.find("my_tsm").urls == (*OWN["urls"], f"{FAR}mine.pth")
    assert zoo.find("my_tsm").filename == "mine.pth"
    assert zoo.find("other").urls == (URL,)
    assert zoo.addresses(zoo.find("my_tsm")) == (
        registry.Address(url=OWN["urls"][0]),
        registry.Address(url=f"{FAR}mine.pth", tested=False, note="perhaps"),
    )
    two = write(tmp_path / "two.yaml", {"mirrors": [{"from": "https://example.org/", "to": [NEAR]}]})
    zoo = registry.load(one, two)
    urls = (*OWN["urls"], f"{NEAR}files/mine.pth", f"{FAR}mine.pth")
    assert zoo.find("my_tsm").urls == urls
    assert [address.tested for address in zoo.addresses(zoo.find("my_tsm"))] == [True, True, False]
    assert registry.load(one, two, two).find("my_tsm").urls == urls


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    "change",
    [
        {"from": "https://example.org/files"},
        {"from": "ftp://example.org/"},
        {"to": []},
        {"to": ["https://near.example"]},
        {"to": ["https://near.example/?x/"]},
        {"tested": "no"},
        {"host": "near.example"},
    ],
)
def test_a_mirror_that_is_none_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    mirror = {"from": "https://example.org/files/", "to": [NEAR]} | change
    with pytest.raises(RegistryError, match=r"own\.yaml: .*mirrors\[0\]"):
        registry.load(write(tmp_path / "own.yaml", {"models": [OWN], "mirrors": [mirror]}))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("userinfo", ["me:hunter", "me:hun/ter", "me", "me:1hunter/x"])
@pytest.mark.parametrize("scheme", ["https", "hf"])
def test_an_address_with_a_password_is_refused_unseen(scheme: str, userinfo: str, tmp_path: Path) -> None:
    """Whatever a registry holds is printed by `info` and copied into contracts."""
    urls = [f"{scheme}://{userinfo}@example.org/a/mine.pth"]
    with pytest.raises(RegistryError, match="address") as caught:
        registry.load(write(tmp_path / "own.yaml", {"models": [OWN | {"urls": urls}]}))
    assert "hun" not in str(caught.value)
    mirror = {"from": "https://example.org/files/", "to": [f"{scheme}://{userinfo}@near.example/"]}
    with pytest.raises(RegistryError, match="address") as caught:
        registry.load(write(tmp_path / "own.yaml", {"models": [OWN], "mirrors": [mirror]}))
    assert "hun" not in str(caught.value)


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
    assert bundled
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


def without(*keys: str) -> dict[str, Any]:
    return {name: value for name, value in OWN.items() if name not in keys}


#: What OWN says and need not: the usual values, and the classes of its labels.
DEFAULTS = ("mode", "modality", "normalisation", "classes")


@pytest.mark.usefixtures("small")
def test_the_usual_may_be_left_out(tmp_path: Path) -> None:
    assert OWN | {"normalisation": "imagenet", "classes": 400} == OWN
    said, unsaid = (
        registry.load(write(tmp_path / "own.yaml", {"models": [entry]})) for entry in (OWN, without(*DEFAULTS))
    )
    assert said.find("my_tsm") == unsaid.find("my_tsm")


@pytest.mark.usefixtures("small")
def test_classes_of_labels_of_ones_own(tmp_path: Path) -> None:
    own = {
        "models": [without("classes") | {"labels": "own-cats"}],
        "labels": {"own-cats": {"classes": 2, "order": "cat, dog"}},
    }
    below = write(tmp_path / "below.yaml", {"labels": own["labels"]})
    for files in (
        [write(tmp_path / "own.yaml", own)],
        [below, write(tmp_path / "top.yaml", {"models": own["models"]})],
    ):
        assert registry.load(*files).find("my_tsm").classes == 2


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param({"models": [OWN | {"colour": 3}]}, ("'my_tsm'", "colour"), id="unknown key"),
        *[
            pytest.param({"models": [without(key)]}, ("'my_tsm'", f"`{key}`"), id=f"no {key}")
            for key in OWN
            if key not in {"id", "urls", *DEFAULTS}
        ],
        pytest.param(
            {"models": [without("params", "gmacs")]}, ("`params` and `gmacs`", "registry check"), id="no figures"
        ),
        pytest.param(
            {"models": [without("classes") | {"labels": "own-cats"}]},
            ("'my_tsm'", "labels", "'own-cats'"),
            id="of none",
        ),
        pytest.param({"models": [without("classes") | {"labels": ["k400"]}]}, ("$.labels",), id="list of labels"),
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
        pytest.param({"models": [OWN | {"labels": "own-cats"}]}, ("'my_tsm'", "labels", "'own-cats'"), id="labels"),
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
        pytest.param({"labels": {"own-cats": {"classes": 2}}}, ("$.labels", "`order`"), id="labels without order"),
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
