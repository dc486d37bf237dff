"""A folder for each format: what it can do, and how its files are written, checked, run and timed.

`__init__.py` holds its `tsmzoo.artifact.converter.Converter`, whose functions are in the modules beside it.
"""
