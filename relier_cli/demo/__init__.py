"""`rl demo`: kill workers under real work, and account for every task."""
