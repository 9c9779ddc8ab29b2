"""`rl bench`: Relier against plain Dramatiq on this machine, in one run, as ratios."""
