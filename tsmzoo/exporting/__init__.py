"""From a network to a verified file with its contract beside it."""
