"""`run` over a network: files and streams of a server of our own, connections that break, and secrets kept."""

from __future__ import annotations

import io
import json
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import av
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from tsmzoo import cli
from tsmzoo.data import address, decode, motion
from tsmzoo.errors import VideoError
from tsmzoo.live import network_source

MODEL = "tsm_mbv2_motion_online"
SECRET = "hunter2"


class Served(BaseHTTPRequestHandler):
    """Serves files, whole (`/v.mp4`), half (`/half/…`), half and then nothing (`/stall/…`), in parts (`/live/…`)."""

    protocol_version = "HTTP/1.1"
    folder: ClassVar[Path]
    asked: ClassVar[list[str]] = []
    done: ClassVar[threading.Event]

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        *ways, name = self.path.partition("?")[0].strip("/").split("/")
        self.asked.append(self.path)
        self.close_connection = True
        if name == "hang":
            self.done.wait(30)
        elif name == "mjpeg":
            self._film()
        elif not (self.folder / name).is_file():
            self.send_error(404)
        elif ways == ["live"]:
            self._parts((self.folder / name).read_bytes())
        else:
            content = (self.folder / name).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if ways else content)
            self.wfile.flush()
            if ways == ["stall"]:
                self.done.wait(30)

    def _parts(self, content: bytes) -> None:
        """Send a stream that does not say how long it is."""
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for start in range(0, len(content), 8192):
            part = content[start : start + 8192]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        self.wfile.write(b"0\r\n\r\n")

    def _film(self) -> None:
        """Send what a camera does: pictures, one after the other; then it breaks off."""
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for number in range(10):
            picture = io.BytesIO()
            Image.new("RGB", (64, 48), (20 * number, 99, 99)).save(picture, "JPEG")
            head = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(picture.getvalue())
            self.wfile.write(head + picture.getvalue() + b"\r\n")
            self.wfile.flush()
            time.sleep(0.05)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve a clip of the bundled task, four times as long; give the address, with a password in it."""
    folder = tmp_path_factory.mktemp("served")
    pictures, _ = motion.scene(3, 5)
    for name, options in (("v.mp4", {"movflags": "faststart"}), ("v.ts", {}), ("v.mkv", {})):
        with av.open(str(folder / name), "w", options=options) as container:
            made = container.add_stream("libx264", rate=32)
            made.width, made.height, made.pix_fmt = 96, 96, "yuv420p"
            for picture in np.repeat(np.asarray(pictures), 4, 0):
                container.mux(made.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
            container.mux(made.encode())
    (folder / "page.html").write_text("<html>no video</html>" * 50)
    Served.folder, Served.done = folder, threading.Event()
    http = ThreadingHTTPServer(("127.0.0.1", 0), Served)
    http.daemon_threads = True
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield f"http://user:{SECRET}@127.0.0.1:{http.server_port}"
    Served.done.set()
    http.shutdown()
    http.server_close()


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for less."""
    monkeypatch.setattr(decode, "TIMEOUTS", (2.0, 2.0))
    monkeypatch.setattr(network_source, "_WAIT", 0.05)


def run(place: str, *options: str, model: str = MODEL) -> Result:
    result = CliRunner().invoke(cli.app, ["run", model, place, "--json", *options])
    assert SECRET not in result.output
    return result


def times(result: Result) -> list[float]:
    return [json.loads(line)["time"] for line in result.stdout.splitlines()]


def refusal(place: str) -> str:
    result = run(place)
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    return line


@pytest.mark.parametrize(
    ("name", "model"), [*((name, MODEL) for name in ("v.mp4", "v.ts", "v.mkv")), ("v.ts", "tsm_mbv2_motion")]
)
def test_a_file_on_a_server_is_answered_as_the_file_is(name: str, model: str, server: str) -> None:
    here, there = run(str(Served.folder / name), model=model), run(f"{server}/{name}?token={SECRET}", model=model)
    assert (here.exit_code, there.exit_code) == (0, 0), there.output
    answers = [[json.loads(line) for line in result.stdout.splitlines()] for result in (here, there)]
    for one, other in zip(*answers, strict=True):
        assert (one["time"], one["top5"]) == (other["time"], other["top5"])


def test_a_stream_without_an_end_is_seen_as_time_goes_by(server: str) -> None:
    begun = time.monotonic()
    result = run(f"{server}/live/v.ts")
    assert result.exit_code == 0, result.output
    frames = Served.folder / "v.ts"
    length = max(moment for moment, _ in decode.decode(frames))
    # However fast the server sends.
    assert time.monotonic() - begun > length
    found = times(result)
    assert found == sorted(set(found))
    assert len(found) >= 4


@pytest.mark.parametrize("way", ["half", pytest.param("stall", marks=pytest.mark.slow)])
def test_a_file_that_breaks_off_is_an_error_after_what_was_there(way: str, server: str) -> None:
    whole, result = times(run(f"{server}/v.mp4")), run(f"{server}/{way}/v.mp4")
    assert result.exit_code == 1
    assert 0 < len(times(result)) < len(whole)
    assert times(result) == whole[: len(times(result))]
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: {server.replace(f'user:{SECRET}@', '')}/{way}/v.mp4: broke off")


@pytest.mark.slow
def test_a_camera_that_goes_away_is_connected_to_again_a_few_times(server: str, tmp_path: Path) -> None:
    Served.asked.clear()
    saved = tmp_path / "saved.mp4"
    result = run(f"{server}/mjpeg", "--save", str(saved))
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert [line.rpartition("; ")[2] for line in lines[:-1]] == [
        f"connecting again ({number} of {network_source.TRIES})" for number in range(1, network_source.TRIES + 1)
    ]
    assert lines[-1].endswith(f"and {network_source.TRIES} new connections did not last; check what sends it")
    assert Served.asked.count("/mjpeg") == 1 + network_source.TRIES
    found = times(result)
    assert found == sorted(set(found))
    assert found[-1] > 1.5  # of all four connections
    assert len(list(decode.decode(saved))) > 4


@pytest.mark.slow
def test_what_hangs_is_given_up(server: str) -> None:
    begun = time.monotonic()
    assert "/hang: cannot be opened (nothing came for too long)" in refusal(f"{server}/hang")
    assert time.monotonic() - begun < 25


def test_what_is_no_video_is_told_in_one_line(server: str) -> None:
    assert "/page.html: cannot be opened (Invalid data found" in refusal(f"{server}/page.html")
    assert "/none.mp4: cannot be opened (Server returned 404 Not Found)" in refusal(f"{server}/none.mp4?k={SECRET}")
    assert "leave out --fps" in run(f"{server}/v.mp4", "--fps", "3").stderr
    for scheme in ("rtsp", "rtmp", "http", "tcp"):
        said = refusal(f"{scheme}://me:{SECRET}@127.0.0.1:9/a/{SECRET if scheme == 'rtmp' else 'b'}")
        assert said.startswith(f"error: {scheme}://127.0.0.1:9/")
        assert "cannot be opened (Connection refused)" in said


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (f"srt://me:{SECRET}@10.0.0.1:9", "srt:// addresses are not read; give one of http, https, rtsp"),
        (f"FOO://{SECRET}/x", "foo:// addresses are not read"),
        ("file:///etc/passwd", "file:// addresses are not read; give the path itself"),
        ("concat://a|b", "concat:// addresses are not read"),
        ("http://", "http:// address is not well formed"),
        (f"rtsp://{SECRET}\n@h/x", "rtsp:// address is not well formed"),
        (f"rtsp://[{SECRET}", "rtsp:// address is not well formed"),
    ],
)
def test_other_addresses_are_refused(name: str, said: str) -> None:
    assert said in refusal(name)


def test_names_that_look_like_addresses_are_none() -> None:
    assert [address.parse(name) for name in ("v.mp4", "C:\\v.mp4", "C:/v.mp4", "a:b", "0", "/a//b", "://x")] == [
        None
    ] * 7


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://u:p@10.0.0.2:554/live", "rtsp://10.0.0.2:554/live"),
        ("RTSP://u:p@h/user=a&password=p&channel=1", "rtsp://h/…"),
        ("rtmp://h/app/key", "rtmp://h/…"),
        ("http://h/v.mp4?token=p#x", "http://h/v.mp4"),
        ("udp://@239.0.0.1:1234", "udp://239.0.0.1:1234"),
    ],
)
def test_an_address_is_shown_without_what_is_secret(url: str, shown: str) -> None:
    found = address.parse(url)
    assert str(found) == shown
    assert repr(found) == "NetworkAddress()"
    assert found is not None
    assert found.url == url


def test_a_playlist_on_a_server_leads_to_no_file_here(server: str) -> None:
    local = Served.folder / "v.ts"
    (Served.folder / "list.m3u8").write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\nfile://{local}\n#EXT-X-ENDLIST\n"
    )
    place = address.parse(f"{server}/list.m3u8")
    assert place is not None
    with pytest.raises(VideoError):
        list(decode.decode(place))


@pytest.mark.parametrize("password", ["hunt#erzz", "hunt?erzz", "hunt/erzz", "1234/567", "123?456@789", "h@zz/z"])
def test_a_password_with_signs_of_an_address_is_not_shown(password: str) -> None:
    name = f"rtsp://admin:{password}@127.0.0.1:1/live"
    try:
        shown = str(address.parse(name))
    except VideoError as error:
        shown = str(error)
    assert not any(part in shown for part in ("admin", *re.split("[#?/@]", password)))


@pytest.mark.parametrize(
    "command",
    [
        ("verify", "x.onnx", "--clip"),
        ("export", "tsm_mbv2_motion", "--to", "onnx", "-o", "x.onnx", "--clip"),
        ("export", "tsm_mbv2_motion", "--to", "onnx", "-o", "x.onnx", "--calibrate"),
        ("eval", "tsm_mbv2_motion", "--data"),
        ("train", "motion", "-o", "x", "--val", ".", "--data"),
        ("train", "motion", "-o", "x", "--data", ".", "--val"),
    ],
)
def test_an_address_in_the_place_of_a_path_is_told_without_its_password(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli.app, [*command, f"rtsp://admin:{SECRET}@10.0.0.1/live"])
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: rtsp://10.0.0.1/live: is an address")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("closed", [False, True])
def test_a_playlist_is_live_until_it_is_closed(server: str, closed: bool) -> None:
    lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:4", "#EXTINF:4,", "v.ts", *(["#EXT-X-ENDLIST"] if closed else [])]
    (Served.folder / "live.m3u8").write_text("\n".join(lines) + "\n")
    place = address.parse(f"{server}/live.m3u8")
    assert place is not None
    live = network_source.NetworkSource(place, lambda _: None)
    try:
        assert live.endless is not closed
    finally:
        live.close()


@pytest.mark.slow
def test_a_live_playlist_that_goes_away_is_connected_to_again(server: str) -> None:
    path = Served.folder / "gone.m3u8"
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nv.ts\n")
    place = address.parse(f"{server}/gone.m3u8")
    assert place is not None
    notes: list[str] = []
    frames = network_source.NetworkSource(place, notes.append).frames()
    next(frames)
    path.unlink()
    with pytest.raises(VideoError, match="3 new connections did not last"):
        list(frames)
    assert len(notes) == network_source.TRIES
