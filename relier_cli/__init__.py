"""The `rl` command line."""
