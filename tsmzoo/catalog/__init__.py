"""What the registry says of a model: rows of `list`, the page of `info`, costs, a stub for one's own checkpoint."""
