"""Pretrained TSN, TSM and I3D video recognition models, and their conversion for phones."""

from __future__ import annotations

import os.path

__version__ = "0.1.0"

# In a checkout, converters/ and recipes/ lie beside this folder; once installed, inside it (pyproject.toml).
if not os.path.exists(os.path.join(__path__[0], "registry.yaml")):
    __path__.append(os.path.dirname(__path__[0]))
