"""A model, opened to be run: a network in torch or an exported file, over clips and streams."""
