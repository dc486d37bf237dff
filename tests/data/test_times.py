"""Times of frames: they begin at 0 and grow, whatever the container says, and a stream is thinned by them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from typer.testing import CliRunner

from tsmzoo import cli
from tsmzoo.data import decode, seek, timing

FRAMES, FPS = 40, 30
B_FRAMES = {"x264-params": "keyint=20:bframes=2:b-adapt=0:scenecut=0:threads=1"}


def pictures(count: int = FRAMES) -> list[np.ndarray]:
    """Return frames whose brightness tells them apart; noise that moves makes them refer to one another."""
    noise = np.random.default_rng(0).integers(0, 12, (48, 64 + count, 3), dtype="uint8")
    return [np.ascontiguousarray(noise[:, number : number + 64] + 5 * number % 230) for number in range(count)]


def write(
    path: Path,
    codec: str = "libx264",
    times: Sequence[int] | None = None,
    *,
    form: str | None = None,
    count: int = FRAMES,
) -> Path:
    """Write frames; `times` are in milliseconds."""
    options = B_FRAMES if codec == "libx264" else {"bf": "2"}
    if codec == "libx265":
        options = {"x265-params": "log-level=none:bframes=2:pools=1"}
    with av.open(str(path), "w", format=form) as container:
        stream = container.add_stream(codec, rate=FPS, options=options)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        stream.bit_rate = 5_000_000
        if times:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, array in enumerate(pictures(count)):
            frame = av.VideoFrame.from_ndarray(array, "rgb24")
            if times:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def restamped(path: Path, target: Path, stamp: dict[str, str]) -> Path:
    """Copy the packets of a video with other times: Python of `n`, the packet's number, `pts` and `dts`."""
    with av.open(str(path)) as given, av.open(str(target), "w") as container:
        stream = container.add_stream_from_template(given.streams.video[0])
        for n, packet in enumerate(packet for packet in given.demux(video=0) if packet.size):
            names = {"n": n, "pts": packet.pts, "dts": packet.dts}
            for field, value in stamp.items():
                setattr(packet, field, eval(value, names))
            packet.stream = stream
            container.mux(packet)
    return target


def decoded(path: Path) -> tuple[list[float], list[float]]:
    """Return the times of all frames, and their brightness, which grows."""
    found = list(decode.decode(path))
    return [time for time, _ in found], [float(np.asarray(image).mean()) for _, image in found]


def assert_grow(values: Sequence[float]) -> None:
    assert all(one < other for one, other in itertools.pairwise(values))


@pytest.mark.parametrize(
    ("name", "codec", "form"),
    [
        ("v.avi", "libx264", None),
        ("v.avi", "mpeg4", None),
        ("v.mp4", "libx264", None),
        ("v.mov", "libx264", None),
        ("v.mkv", "libx264", None),
        ("v.ts", "libx264", None),
        ("v.flv", "libx264", None),
        ("v.nut", "libx264", None),
        ("v.mpg", "mpeg2video", None),
        ("v.mxf", "mpeg2video", None),
        ("v.m4v", "mpeg4", "m4v"),
        ("v.h264", "libx264", "h264"),
        ("v.hevc", "libx265", "hevc"),
    ],
)
def test_every_container_gives_even_times_in_the_order_of_display(
    name: str, codec: str, form: str | None, tmp_path: Path
) -> None:
    path = write(tmp_path / name, codec, form=form)
    times, brightness = decoded(path)
    assert len(times) == FRAMES
    assert times == pytest.approx((np.arange(FRAMES) / FPS).tolist(), abs=1.1e-3)
    assert_grow(brightness)
    indices = [0, 7, 8, 9, FRAMES - 1]
    chosen = seek.pick(path, lambda _: indices)
    assert chosen.times == pytest.approx({index: times[index] for index in indices}, abs=1e-9)
    for index, image in chosen.images.items():
        assert float(np.asarray(image).mean()) == brightness[index]


@pytest.mark.parametrize("name", ["v.avi", "v.h264"])
def test_an_online_model_sees_half_of_thirty_frames_a_second(name: str, tmp_path: Path) -> None:
    path = write(tmp_path / name, form="h264" if name.endswith("h264") else None)
    result = CliRunner().invoke(cli.app, ["run", "tsm_mbv2_online", str(path), "--weights", "random", "--json"])
    assert result.exit_code == 0, result.output
    times = [json.loads(line)["time"] for line in result.stdout.splitlines()]
    assert times == pytest.approx([2 * step / FPS for step in range(FRAMES // 2)], abs=2e-3)
    said = [line for line in result.stderr.splitlines() if "has no times" in line]
    assert len(said) == (1 if name == "v.h264" else 0)
    if said:
        assert said[0] == f"{path}: has no times; its frames are taken to be 30 a second, its nominal rate"


@pytest.mark.parametrize(("name", "ticks"), [("v.mp4", 512), ("v.mkv", 33)])
def test_times_of_decoding_that_were_written_for_those_of_display(name: str, ticks: int, tmp_path: Path) -> None:
    """What tools write that know no B-frames: the fast path would take the wrong frames."""
    stamp = {"pts": f"{ticks} * n", "dts": f"{ticks} * n"}
    path = restamped(write(tmp_path / f"whole-{name}"), tmp_path / name, stamp)
    times, brightness = decoded(path)
    assert_grow(times)
    assert_grow(brightness)
    assert times[-1] == pytest.approx((FRAMES - 1) / FPS, abs=0.07)
    for index in (1, 2, 3, 4, 11, 30):
        image = seek.pick(path, lambda _, i=index: [i]).images[index]
        assert float(np.asarray(image).mean()) == brightness[index]


def test_files_that_were_joined_go_on(tmp_path: Path) -> None:
    """Concatenated transport streams begin anew in the middle."""
    parts = [write(tmp_path / f"{number}.ts", count=count).read_bytes() for number, count in enumerate((60, 40))]
    path = tmp_path / "v.ts"
    path.write_bytes(b"".join(parts))
    times, _ = decoded(path)
    assert len(times) == 100
    assert times == pytest.approx((np.arange(100) / FPS).tolist(), abs=0.05)


def test_a_gap_stays_one_and_nonsense_does_not(tmp_path: Path) -> None:
    gap = [0, 30, 60, 5000, 5030, 5060, 5090, 5120, 5150, 5180, 5210]
    times, _ = decoded(write(tmp_path / "v.mkv", times=gap, count=len(gap)))
    assert times == pytest.approx([time / 1000 for time in gap], abs=1e-3)
    far = [0, 33, 67, 10**9, 10**9 + 33]
    times, _ = decoded(write(tmp_path / "far.mkv", times=far, count=len(far)))
    assert times == pytest.approx([0, 0.033, 0.067, 0.1, 0.133], abs=2e-3)


# --- the clock alone -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        pytest.param([1.4, 1.5, 1.6], [0, 0.1, 0.2], id="begins late"),
        pytest.param([-0.2, -0.1, 0], [0, 0.1, 0.2], id="begins early"),
        pytest.param([None] * 3, [0, 0.1, 0.2], id="says nothing"),
        pytest.param([0, None, 0.2, None], [0, 0.1, 0.2, 0.3], id="says not all"),
        pytest.param([None, 5, 5.1], [0, 0.1, 0.2], id="says the first late"),
        pytest.param([0, 0, 0, 0], [0, 0.1, 0.2, 0.3], id="stands still"),
        pytest.param([0, 0.1, 0.1, 0.2, 0.4], [0, 0.1, 0.2, 0.3, 0.4], id="says one twice"),
        pytest.param([0, 0.01, 0.02, 0.02, 0.03, 0.5], [0, 0.01, 0.02, 0.03, 0.04, 0.5], id="a burst with one twice"),
        pytest.param([5, 5.1, 0, 0.1, 0.2], [0, 0.1, 0.2, 0.3, 0.4], id="jumps back"),
        pytest.param([0, 0.1, 1e9, 1e9 + 0.1], [0, 0.1, 0.2, 0.3], id="jumps years ahead"),
        pytest.param([0, 0.1, 60, 60.1], [0, 0.1, 60, 60.1], id="a minute's gap"),
    ],
)
def test_a_clock_begins_at_0_and_only_grows(said: list[float | None], wanted: list[float]) -> None:
    clock = timing.Clock(Fraction(10))
    assert [clock.at(time) for time in said] == pytest.approx(wanted)
