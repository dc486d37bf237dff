"""Data: how models are evaluated (`eval/`) and exported (`export/`). Adding a recipe touches no Python."""
