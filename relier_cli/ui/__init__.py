"""`rl ui`: a small web page on this machine alone, which shows what `rl top` does."""
