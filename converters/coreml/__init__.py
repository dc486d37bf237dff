"""Core ML: the functions and facts of `tsmzoo.artifact.converter.Converter`."""

from .convert import (
    check,
    clip_layout,
    convert,
    frame_layout,
    libraries,
    load,
    packed_state,
    pixel_dtype,
    pixel_type,
    precisions,
    quantize,
)

__all__ = [
    "check",
    "clip_layout",
    "convert",
    "frame_layout",
    "libraries",
    "load",
    "packed_state",
    "pixel_dtype",
    "pixel_type",
    "precisions",
    "quantize",
]
