"""What the registry knows about models: `list`, `info`, `flops`, and an entry for your own checkpoint."""
