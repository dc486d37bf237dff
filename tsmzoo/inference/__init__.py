"""Run a model, a network in torch or an exported file, on clips, videos and streams."""
