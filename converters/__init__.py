"""A folder a format: how a model is written in it, and how the file is checked and run.

Each offers what `tsmzoo.artifact.converter.Converter` asks.
"""
