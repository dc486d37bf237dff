"""Accuracy under a protocol: predictions, metrics, reports."""
