"""Say in plain words why a server could not be reached: its name, or its certificate."""

from __future__ import annotations

import socket
import ssl
import time
from urllib.parse import urlsplit
from urllib.request import getproxies

from tsmzoo.text import ERROR, of_error, one_line

#: X509_V_FLAG_NO_CHECK_TIME of OpenSSL, for which Python has no name.
_NO_CHECK_TIME = 0x200000
#: Seconds to wait for a certificate whose end is to be read.
_PATIENCE = 10.0


def reason(error: BaseException, address: str) -> str:
    """Return the reason of an error on the way to the server of `address`; what the error says if it is another."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, socket.gaierror):
            return "its name, or the proxy's, does not resolve" if getproxies() else "its name does not resolve"
        if isinstance(cause, ssl.SSLCertVerificationError):
            if "expired" not in str(cause):
                return f"its certificate is refused: {one_line(cause.verify_message, ERROR)}"
            ended = _end_of_certificate(address)
            return f"its certificate expired on {ended}" if ended else "its certificate, or its issuer's, has expired"
        cause = cause.__cause__ or cause.__context__
    return of_error(error)


def _end_of_certificate(address: str) -> str | None:
    """Return the day on which a certificate expired; None if that cannot be found out.

    All but the dates of the certificate is checked, and no request is sent.
    """
    import httpx2

    if getproxies():  # the server may be out of direct reach
        return None
    try:
        url = urlsplit(address)
        host = url.hostname or ""
        context = httpx2.create_ssl_context()
        context.verify_flags |= _NO_CHECK_TIME
        with (
            socket.create_connection((host, url.port or 443), _PATIENCE) as plain,
            context.wrap_socket(plain, server_hostname=host) as connection,
        ):
            ends = ssl.cert_time_to_seconds(str((connection.getpeercert() or {})["notAfter"]))
    except (OSError, ValueError, KeyError):
        return None
    return time.strftime("%Y-%m-%d", time.gmtime(ends)) if ends < time.time() else None
