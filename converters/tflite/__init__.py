"""TFLite: the functions and facts of `tsmzoo.artifact.converter.Converter`."""

from .convert import (
    SIGNATURE,
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
    "SIGNATURE",
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
