"""A folder for an app: the exported file, a class that runs it, and a test vector."""
