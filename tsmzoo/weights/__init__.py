"""Checkpoints: download, read whatever format they are in, and map their tensors to our networks."""
