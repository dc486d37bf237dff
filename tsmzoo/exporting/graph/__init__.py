"""Rewrites of a network that export applies, each exact."""
