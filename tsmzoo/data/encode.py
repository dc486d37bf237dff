"""Write frames to a video file."""

from __future__ import annotations

from pathlib import Path

import av

from tsmzoo.typing import Array


def encode(path: Path, frames: Array, fps: int) -> None:
    """Write `frames`, (T, H, W, 3) uint8 RGB with even H and W, as Motion JPEG in MP4 at `fps` frames per second.

    Each frame is coded by itself at one quality, so nothing in the file, not even its size, depends on the order of
    the frames.
    """
    with av.open(path, "w", format="mp4") as container:
        stream = container.add_stream("mjpeg", rate=fps, options={"qmin": "3", "qmax": "3"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuvj420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
