"""One module a format: how a model is written in it, and how the file is checked and run (tsmzoo.converter)."""
