"""Train a network on one's own videos."""
