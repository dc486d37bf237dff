"""`python -m tsmzoo`."""

from __future__ import annotations

from tsmzoo.cli import main

main()
