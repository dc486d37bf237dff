"""Download files from the Hugging Face hub, ask for their size, and send exported ones there."""

from __future__ import annotations

import logging
import os
import re
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tsmzoo.callbacks import Notify
from tsmzoo.errors import DownloadError
from tsmzoo.formats import is_artifact
from tsmzoo.registry.paths import cache_dir
from tsmzoo.system import files
from tsmzoo.text import one_line
from tsmzoo.weights.http import NO_ROOM, Refused, companion, discard, is_offline, too_large, without_credentials


def fetch_from_hub(address: str, part: Path, max_bytes: int) -> str:
    """Download `hf://owner/repo/path[@revision]` to `part` and return its sha256. Raises Refused.

    The hub's library resumes, retries and shows its own progress.
    """
    repo, name, revision = _parse(address)
    from huggingface_hub import hf_hub_download

    store = companion(part, ".hub")
    if _leads_elsewhere(store):
        files.remove(store)
    try:
        with _quiet_hub():
            about = hf_hub_download(repo, name, revision=revision, cache_dir=store, dry_run=True)
            if about.file_size is not None and about.file_size > max_bytes:
                raise too_large(max_bytes)
            found = Path(hf_hub_download(repo, name, revision=revision, cache_dir=store)).resolve()
        if found.stat().st_size > max_bytes:
            raise too_large(max_bytes)
    except Exception as error:  # the library and its transfer back ends raise a dozen unrelated types
        if isinstance(error, Refused) or (isinstance(error, OSError) and error.errno in NO_ROOM):
            raise
        raise Refused(_why(error)) from None
    discard(part)
    os.replace(found, part)  # the blob that the link points to: moved, so that no second copy stays
    shutil.rmtree(store, ignore_errors=True)
    return files.sha256(part).hexdigest()


def size(address: str) -> int | None:
    """Return the bytes of a file on the hub; None if the hub does not say. Raises Refused."""
    repo, name, revision = _parse(address)
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    try:
        with _quiet_hub():
            return get_hf_file_metadata(hf_hub_url(repo, name, revision=revision)).size
    except Exception as error:  # as above
        raise Refused(_why(error)) from None


def _parse(address: str) -> tuple[str, str, str | None]:
    """Return repository, path and revision of an address. Raises Refused."""
    where, _, revision = address.removeprefix("hf://").partition("@")
    pieces = where.split("/", 2)
    if len(pieces) < 3:
        raise Refused("an address on the hub is hf://owner/repo/path")
    return "/".join(pieces[:2]), pieces[2], revision or None


def fetch_artifact(address: str) -> Path:
    """Return the exported file `hf://USER/REPO/FILE[@REVISION]`, its contract beside it, from the cache or the hub.

    Without a network, what is in the cache serves. Raises DownloadError.
    """
    match = re.fullmatch(r"hf://([^/@]+/[^/@]+)/([^@]+?)/?(?:@(.+))?", address)
    if match is None or not is_artifact(match[2]) or ".." in match[2].split("/"):
        raise DownloadError(
            f"{one_line(without_credentials(address))}: is no exported file on the hub; give hf://USER/REPO/FILE[@REVISION]"
        )
    repo, name, revision = match.groups()
    plain, _ = os.path.splitext(name)
    # Brackets would be a wildcard of fnmatch's.
    wanted = [re.sub(r"([\[*?])", r"[\1]", each) for each in (name, f"{name}.json", f"{plain}.json")]
    from huggingface_hub import snapshot_download

    try:
        with _quiet_hub():
            folder = snapshot_download(
                repo,
                revision=revision,
                allow_patterns=[*wanted, f"{wanted[0]}/**"],
                cache_dir=cache_dir() / "hub",
                local_files_only=is_offline(),
            )
    except Exception as error:  # as above
        offline = "is not in the cache, and TSMZOO_OFFLINE is set; unset it"
        raise DownloadError(
            f"{one_line(without_credentials(address))}: {offline if is_offline() else _why(error)}"
        ) from None
    found = Path(folder, name)
    if not found.exists():
        raise DownloadError(
            f"{one_line(without_credentials(address))}: the repository has no such file; look at its list of files"
        )
    return found


def repository(address: str) -> str:
    """Return `USER/REPO` of `hf://USER/REPO`. Raises DownloadError if it is no name of a repository."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    repo = address.removeprefix("hf://").rstrip("/")
    try:
        validate_repo_id(repo)
        valid = address.startswith("hf://") and repo.count("/") == 1
    except HFValidationError:
        valid = False
    if not valid:
        raise DownloadError(
            f"{one_line(without_credentials(address))}: is no repository on the hub; give hf://USER/REPO"
        )
    return repo


def push(
    repo: str, content: dict[str, Path | bytes], card: str, marker: str, message: str, *, private: bool, notify: Notify
) -> tuple[str, str, list[str]]:
    """Send files by their names to `repo`, which is created if need be, with `card` as README.md, in one commit.

    A README.md without `marker` stays. Return the commit, its address and the names of what was sent. Raises
    DownloadError.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, get_token

    if is_offline():
        raise DownloadError(f"{repo}: TSMZOO_OFFLINE is set; unset it to push")
    if get_token() is None:
        raise DownloadError(f"{repo}: no token for the hub; log in with `hf auth login`, or set HF_TOKEN")
    api = HfApi()
    try:
        with _quiet_hub(), files.temporary() as folder:
            api.create_repo(repo, private=private, exist_ok=True)
            if private and not api.repo_info(repo).private:
                raise DownloadError(f"{repo}: is public already; make it private on the hub, or leave out --private")
            sent: dict[str, Path | bytes] = dict(content)
            if api.file_exists(repo, "README.md"):
                there = Path(api.hf_hub_download(repo, "README.md", cache_dir=folder))
                ours = marker in there.read_text(encoding="utf-8", errors="replace")
            else:
                ours = True
            if ours:
                sent["README.md"] = card.encode()
            else:
                notify(f"{repo}: its README.md was not written by tsmzoo and stays; `tsmzoo card` prints the card")
            operations = [CommitOperationAdd(name, each) for name, each in sent.items()]
            done = api.create_commit(repo, operations, commit_message=message)
    except DownloadError:
        raise
    except Exception as error:  # as above
        raise DownloadError(f"{repo}: was not pushed as far as is known: {_why(error)}") from None
    return done.oid, done.commit_url, list(sent)


def _why(error: BaseException) -> str:
    """Return why the hub did not do as asked, and what helps."""
    import httpx2
    from huggingface_hub.constants import ENDPOINT

    from tsmzoo.weights import unreachable

    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == 401:
        return "the hub does not know the token, or the repository (HTTP 401); log in with `hf auth login`"
    if status == 403:
        return "the token may not do this (HTTP 403); take one that may write to the repository"
    if status == 404:
        return "the hub has no such repository, file or revision (HTTP 404), or it is private: `hf auth login`"
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, httpx2.ConnectError):
        cause = cause.__cause__ or cause.__context__
    reason = without_credentials(unreachable.reason(cause or error, ENDPOINT))
    return f"no connection to the hub ({reason})" if cause else reason


def _leads_elsewhere(store: Path) -> bool:
    """Say whether the remains of a download are or contain a link out of it; the library's own links are not."""
    inside = (Path(folder, name) for folder, folders, names in os.walk(store) for name in (*folders, *names))
    return store.is_symlink() or any(
        path.is_symlink() and not path.resolve().is_relative_to(store.resolve()) for path in inside
    )


@contextmanager
def _quiet_hub() -> Iterator[None]:
    """Keep the library from reporting each retry: the user sees its last error. Its bars are for a terminal alone."""
    from huggingface_hub.constants import HF_HUB_DISABLE_PROGRESS_BARS
    from huggingface_hub.utils import logging as of_hub
    from huggingface_hub.utils.tqdm import disable_progress_bars, enable_progress_bars

    before = of_hub.get_verbosity()
    of_hub.set_verbosity(logging.CRITICAL)
    barred = not sys.stderr.isatty() and HF_HUB_DISABLE_PROGRESS_BARS is None
    if barred:
        disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        of_hub.set_verbosity(before)
        if barred:
            enable_progress_bars()
