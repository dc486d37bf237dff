"""Live sources on a network: always the latest frame; a connection that breaks is made again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from threading import Condition, Thread
from typing import TYPE_CHECKING

from tsmzoo.data import decode, timing
from tsmzoo.data.address import NetworkAddress
from tsmzoo.errors import VideoError

if TYPE_CHECKING:
    import av
    from PIL import Image

#: Connections tried in a row, and the seconds after which a connection was no failure.
TRIES, STEADY = 3, 10.0
#: Seconds before the first of them; each further one waits twice as long.
_WAIT = 1.0
#: Seconds to wait for a frame at most: if the times of a stream jump farther, it goes on from there.
_AHEAD = 5.0
#: Formats of cameras, which have no end.
_ENDLESS = {"mpjpeg", "rtsp", "rtp", "sdp"}
#: Formats that are lists of parts: their size is that of the list, and a live one grows.
_PLAYLISTS = {"hls", "dash"}

#: Seconds since the first connection, and a function that decodes the image.
_Item = tuple[float, "Callable[[], Image.Image]"]
_Connection = tuple["av.container.InputContainer", "av.VideoStream"]


class _Latest:
    """The latest frame, passed from the thread that receives to the one that reads."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._item: _Item | None = None
        self._ended = False
        self._error: BaseException | None = None

    def put(self, item: _Item) -> None:
        with self._changed:
            self._item = item
            self._changed.notify_all()

    def take(self) -> _Item | None:
        """Return the next frame, None after the last. Raises what ended the other thread."""
        with self._changed:
            while self._item is None and not self._ended:
                self._changed.wait(0.2)  # Ctrl-C is heard between
            item, self._item = self._item, None
            if item is None and self._error is not None:
                raise self._error
            return item

    def end(self, error: BaseException | None = None) -> None:
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    def wait(self, seconds: float) -> bool:
        """Wait so long, or until nobody reads any more; return True in that case."""
        with self._changed:
            return self._changed.wait_for(lambda: self._ended, max(0.0, seconds))


class NetworkSource:
    """A source on a network, connected; `frames` starts with this connection."""

    def __init__(self, address: NetworkAddress, notify: Callable[[str], None]) -> None:
        self._address, self._notify = address, notify
        self._open = ExitStack()
        self._first: _Connection | None = self._connect()
        container, stream = self._first
        #: Nominal frames a second.
        self.rate = stream.average_rate or timing.DEFAULT_RATE
        #: It is a camera, or a stream whose length is not known, in seconds or in bytes.
        size = 0 if _is_playlist(container) else container.size
        self.endless = not self._is_http or max(container.duration or 0, size) <= 0

    def close(self) -> None:
        """Close the connection."""
        self._first = None
        self._open.close()

    def frames(self) -> Iterator[_Item]:
        """Yield the latest frame each time. Raises VideoError if the source goes away and does not come back."""
        latest = _Latest()
        thread = Thread(target=self._receive, args=(latest,), daemon=True)
        thread.start()
        try:
            while (item := latest.take()) is not None:
                yield item
        finally:
            latest.end()
            thread.join(2)  # longer only where nothing comes

    @property
    def _is_http(self) -> bool:
        return self._address.scheme in ("http", "https")

    def _connect(self) -> _Connection:
        return self._open.enter_context(decode.open_video(self._address))

    def _receive(self, latest: _Latest) -> None:
        try:
            begun, tries = time.monotonic(), 0
            while True:
                connected = time.monotonic()
                why = self._until_it_breaks(latest, begun)
                self.close()
                if why is None:
                    break
                if time.monotonic() - connected > STEADY:
                    tries = 0
                while self._first is None:
                    gone = f"{self._address}: {why} after {time.monotonic() - begun:.1f} s"
                    if tries == TRIES:
                        raise VideoError(f"{gone}, and {TRIES} new connections did not last; check what sends it")
                    tries += 1
                    self._notify(f"{gone}; connecting again ({tries} of {TRIES})")
                    if latest.wait(_WAIT * 2 ** (tries - 1)):
                        return
                    try:
                        self._first = self._connect()
                    except VideoError:
                        why = "is not there"
                        continue
                    if _is_playlist(self._first[0]) and self._first[0].duration:  # closed, and seen to its end
                        self.close()
                        return latest.end()
            latest.end()
        except BaseException as error:  # raised in the thread that reads
            latest.end(error)

    def _until_it_breaks(self, latest: _Latest, begun: float) -> str | None:
        """Receive until the connection ends; return the reason, None if it is the end of the stream."""
        connection, self._first = self._first or self._connect(), None
        container, stream = connection
        start, clock = time.monotonic() - begun, timing.clock(stream)
        try:
            for said, image in decode.decode_live(container, stream):
                now = time.monotonic() - begun
                if said is not None and self._is_http:
                    # A server may send faster than time goes by, or some seconds at once.
                    at = start + clock.at(said)
                    if at - now > _AHEAD:
                        start -= at - now
                    elif at > now:
                        if latest.wait(at - now):
                            return None
                        now = at
                elif latest.wait(0):
                    return None
                latest.put((now, image))
        except VideoError as error:
            return f"broke off ({error})"
        goes_on = container.format.name in _ENDLESS or (self.endless and _is_playlist(container))
        return "ended" if not self._is_http or goes_on else None


def _is_playlist(container: av.container.InputContainer) -> bool:
    return not _PLAYLISTS.isdisjoint(container.format.name.split(","))
