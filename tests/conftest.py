"""Shared fixtures; with importlib mode tests import no helper modules."""
