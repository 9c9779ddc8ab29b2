"""`rl chaos`: break something on purpose, and see whether the promise holds."""
