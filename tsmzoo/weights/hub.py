"""Download a file from the Hugging Face hub, or ask only for its size."""

from __future__ import annotations

import logging
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tsmzoo.system import files
from tsmzoo.weights.http import NO_ROOM, Refused, companion, discard, too_large


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
        raise _refused(error) from None
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
        raise _refused(error) from None


def _parse(address: str) -> tuple[str, str, str | None]:
    """Return repository, path and revision of an address. Raises Refused."""
    where, _, revision = address.removeprefix("hf://").partition("@")
    pieces = where.split("/", 2)
    if len(pieces) < 3:
        raise Refused("an address on the hub is hf://owner/repo/path")
    return "/".join(pieces[:2]), pieces[2], revision or None


def _refused(error: Exception) -> Refused:
    from huggingface_hub.constants import ENDPOINT

    from tsmzoo.weights import unreachable

    return Refused(unreachable.reason(error, ENDPOINT))


def _leads_elsewhere(store: Path) -> bool:
    """Say whether the remains of a download are or contain a link out of it; the library's own links are not."""
    inside = (Path(folder, name) for folder, folders, names in os.walk(store) for name in (*folders, *names))
    return store.is_symlink() or any(
        path.is_symlink() and not path.resolve().is_relative_to(store.resolve()) for path in inside
    )


@contextmanager
def _quiet_hub() -> Iterator[None]:
    """Keep the library from reporting each retry: the user sees its last error."""
    from huggingface_hub.utils import logging as of_hub

    before = of_hub.get_verbosity()
    of_hub.set_verbosity(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        of_hub.set_verbosity(before)
