"""Random faults under load; see `python -m benchmarks.storm --help`."""
