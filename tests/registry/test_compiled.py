"""The copy of the registry in the cache: equal to the registry, and never older."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tsmzoo import registry
from tsmzoo.registry import Registry, compiled, paths


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    monkeypatch.setenv("TSMZOO_CACHE", str(tmp_path / "cache"))
    return []


def load(path: Path, reads: list[str], zoo: Registry | None = None) -> Registry:
    def read() -> Registry:
        reads.append(path.read_text())
        return zoo or Registry(aliases={"text": reads[-1]})

    return compiled.load(path, Registry, read)


def test_the_copy_is_read_until_the_registry_changes(reads: list[str], tmp_path: Path) -> None:
    path = tmp_path / "registry.yaml"
    for text in ("one", "two", "three"):
        path.write_text(text)
        os.utime(path, ns=(len(reads), len(reads)))  # at once, on a file system of coarse times
        for _ in range(2):
            assert load(path, reads).aliases == {"text": text}
    assert reads == ["one", "two", "three"]


def test_another_place_has_another_copy(reads: list[str], tmp_path: Path) -> None:
    for name in "ab" * 2:
        (tmp_path / name).write_text(name)
        os.utime(tmp_path / name, ns=(1, 1))
        assert load(tmp_path / name, reads).aliases == {"text": name}
    assert reads == ["a", "b"]


def test_the_copy_of_the_projects_registry_is_equal_to_it(reads: list[str], tmp_path: Path) -> None:
    (tmp_path / "registry.yaml").write_text("")
    zoo = registry.load()
    assert load(tmp_path / "registry.yaml", reads, zoo) == load(tmp_path / "registry.yaml", reads) == zoo
    assert len(reads) == 1


@pytest.mark.parametrize("content", [b"", b"{", b'{"sources":[],"registry":{}}', b"\xff"])
def test_a_broken_copy_is_replaced(content: bytes, reads: list[str], tmp_path: Path) -> None:
    path = tmp_path / "registry.yaml"
    path.write_text("one")
    load(path, reads)
    (copy,) = (paths.cache_dir() / "compiled").iterdir()
    copy.write_bytes(content)
    assert load(path, reads).aliases == load(path, reads).aliases == {"text": "one"}
    assert len(reads) == 2


def test_without_a_cache_the_registry_is_read(
    reads: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("one")
    for cache in (str(tmp_path / "file" / "cache"), "~no-such-user/cache"):
        monkeypatch.setenv("TSMZOO_CACHE", cache)
        assert load(tmp_path / "file", reads).aliases == {"text": "one"}
    assert len(reads) == 2
