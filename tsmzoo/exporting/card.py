"""The model card of an exported file, in Markdown, as the Hugging Face hub shows it; and sending both there."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined

from tsmzoo.artifact import store
from tsmzoo.artifact.contract import check_consistent
from tsmzoo.callbacks import Notify
from tsmzoo.errors import ArtifactError
from tsmzoo.registry import Registry
from tsmzoo.weights import hub

#: What tells a card of ours from a README that somebody wrote.
MARKER = "<!-- Written by tsmzoo; a README.md without this line is never replaced. -->"
#: The hub's names for licences are SPDX's in small letters.
_LICENCES = {"Apache-2.0", "MIT", "BSD-3-Clause", "BSD-2-Clause", "CC-BY-4.0", "CC-BY-NC-4.0", "CC0-1.0"}
_UNTAGGABLE = re.compile(r"[^\w.-]+")


class Pushed(msgspec.Struct, frozen=True):
    """An exported file on the hub."""

    #: The file's address, of this very commit, as `tsmzoo run` takes it.
    address: str
    #: The commit, as the hub names it and shows it.
    commit: str
    url: str
    #: What was sent, by its name there.
    files: list[str]


def text(zoo: Registry, path: Path, repo: str | None = None) -> str:
    """Return the card of the file at `path`; `repo` is where it will be.

    Raises ArtifactError if it is no exported file, or was changed since.
    """
    contract = store.opened(path)
    check_consistent(path, contract)
    entry = zoo.by_id.get(contract.model)
    environment = Environment(
        loader=PackageLoader("tsmzoo.exporting"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    tags = (contract.family, contract.backbone, contract.dataset, contract.format, contract.precision, contract.mode)
    return environment.get_template("card.md").render(
        contract=contract,
        file=path.name,
        marker=MARKER,
        known_licence=contract.licence in _LICENCES,
        tags=[tag for each in dict.fromkeys(tags) if (tag := _UNTAGGABLE.sub("-", each))],
        published=entry.results if entry is not None and contract.weights == "published" else (),
        licence_note=zoo.sources[entry.source].licence_note if entry is not None else None,
        repo=repo,
    )


def push(zoo: Registry, path: Path, to: str, *, private: bool, allow_random: bool, notify: Notify) -> Pushed:
    """Send a file, its contract and its card to the hub in one commit.

    Raises ArtifactError if it is no exported file, was changed since, or has random weights that are not allowed;
    DownloadError if the hub does not take it.
    """
    repo = hub.repository(to)
    card = text(zoo, path, repo)  # which holds the file to its digest
    contract = store.read_contract(path)
    if contract.weights == "random" and not allow_random:
        raise ArtifactError(f"{path}: its weights are random; give --allow-random to push it all the same")
    # One name for each format: NAME.json would be that of another file of the same NAME.
    files: dict[str, Path | bytes] = {f"{path.name}.json": msgspec.json.format(msgspec.json.encode(contract), indent=2)}
    if path.is_dir():
        files |= {
            f"{path.name}/{each.relative_to(path).as_posix()}": each
            for each in sorted(path.rglob("*"))
            if each.is_file()
        }
    else:
        files[path.name] = path
    message = f"Add {path.name}, exported by tsmzoo"
    commit, url, sent = hub.push(repo, files, card, MARKER, message, private=private, notify=notify)
    return Pushed(f"hf://{repo}/{path.name}@{commit}", commit, url, sent)
