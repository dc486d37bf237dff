"""Export networks to files, verify these, and write kits for apps."""
