"""Latency and memory of models and exported files, measured side by side, and plots of them."""
