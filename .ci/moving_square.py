"""Writes a short video of a square that moves from left to right, for `make demo`."""

import sys

import av
import numpy as np

WIDTH, HEIGHT, FPS, SECONDS = 320, 240, 30, 3

with av.open(sys.argv[1], "w") as container:
    stream = container.add_stream("mpeg4", rate=FPS)
    stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    background = np.random.default_rng(0).integers(40, 90, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    for index in range(FPS * SECONDS):
        image = background.copy()
        left = index * (WIDTH - 60) // (FPS * SECONDS)
        image[90:150, left : left + 60] = (230, 120, 40)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
    container.mux(stream.encode())
