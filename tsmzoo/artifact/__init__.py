"""Exported files: their contract, how they lie on disk, and the interface that every format implements."""
