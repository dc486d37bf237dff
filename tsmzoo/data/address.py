"""Parse the addresses of videos and cameras on a network, which `run` reads."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tsmzoo.errors import VideoError

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://.*", re.DOTALL)
#: Schemes that are read. All but the first two are live sources.
SCHEMES = ("http", "https", "rtsp", "rtsps", "rtmp", "rtmps", "rtp", "tcp", "udp")
#: Protocols that such an address, or a playlist there, may lead to; never `file` and similar ones.
PROTOCOLS = ",".join((*SCHEMES, "tls", "httpproxy", "srtp", "crypto"))


@dataclass(frozen=True)
class NetworkAddress:
    """A network address; `str` of it leaves out user, password, query and stream key."""

    url: str = field(repr=False)

    @property
    def scheme(self) -> str:
        return self.url.partition(":")[0].lower()

    def __str__(self) -> str:
        parts = urlsplit(self.url)
        if "@" in self.url.replace(parts.netloc, "", 1):  # perhaps of a password with a / or ? in it
            return f"{self.scheme}://…"
        place = parts.netloc.rpartition("@")[2]
        # Cameras have passwords in paths, too; the last part of an RTMP path is a key.
        secret = "=" in parts.path or self.scheme.startswith("rtmp")
        return f"{self.scheme}://{place}{'/…' if secret else parts.path}"


def parse(name: str) -> NetworkAddress | None:
    """Return the address in `name`, or None if it is not one. Raises VideoError if the scheme is not read."""
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
        # A port that is not a number is the beginning of a password with a /, ? or # in it.
        port = parts.port
        has_host = bool(parts.hostname) or (scheme in ("udp", "rtp", "tcp") and port is not None)
    except ValueError:
        has_host = False
    if not has_host or not name.isprintable():
        raise VideoError(
            f"{scheme}:// address is not well formed; give it as {scheme}://host:port/path, with a password's "
            "own signs as %XX"
        )
    return NetworkAddress(name)
