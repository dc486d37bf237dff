"""Pretrained TSN, TSM and I3D video recognition models, and their conversion for phones."""

from __future__ import annotations

__version__ = "0.1.0"
