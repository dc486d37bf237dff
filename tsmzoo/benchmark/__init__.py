"""Latency and memory of files and networks, side by side."""
