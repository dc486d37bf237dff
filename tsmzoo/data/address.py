"""Addresses of videos and cameras on a network, which `run` reads where the user names one."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tsmzoo.errors import VideoError

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://.*", re.DOTALL)
#: What is read. All but the first two are live whatever they say.
SCHEMES = ("http", "https", "rtsp", "rtsps", "rtmp", "rtmps", "rtp", "tcp", "udp")
#: Protocols that such an address, or a playlist there, may lead to; never `file` and its like.
PROTOCOLS = ",".join((*SCHEMES, "tls", "httpproxy", "srtp", "crypto"))


@dataclass(frozen=True)
class Address:
    """An address; as text it is without what a stranger must not see: user, password, query, stream key."""

    url: str = field(repr=False)

    @property
    def scheme(self) -> str:
        return self.url.partition(":")[0].lower()

    def __str__(self) -> str:
        parts = urlsplit(self.url)
        if "@" in self.url.replace(parts.netloc, "", 1):  # of a password with a / or ? in it, perhaps
            return f"{self.scheme}://…"
        place = parts.netloc.rpartition("@")[2]
        # Cameras have passwords in paths, too; the last part of RTMP's is a key.
        secret = "=" in parts.path or self.scheme.startswith("rtmp")
        return f"{self.scheme}://{place}{'/…' if secret else parts.path}"


def parse(name: str) -> Address | None:
    """Return the address that `name` is, None where it is none. Raises VideoError where no such is read."""
    match = _ADDRESS.fullmatch(name)
    if match is None:
        return None
    scheme = match[1].lower()
    if scheme == "file":
        raise VideoError("file:// addresses are not read; give the path itself")
    if scheme not in SCHEMES:
        raise VideoError(f"{scheme}:// addresses are not read; give one of {', '.join(SCHEMES)}, or a file")
    try:
        parts = urlsplit(name)
        # A port that is no number is the beginning of a password with a /, ? or # in it.
        port = parts.port
        has_host = bool(parts.hostname) or (scheme in ("udp", "rtp", "tcp") and port is not None)
    except ValueError:
        has_host = False
    if not has_host or not name.isprintable():
        raise VideoError(
            f"{scheme}:// address is not well formed; give it as {scheme}://host:port/path, with a password's "
            "own signs as %XX"
        )
    return Address(name)
