"""What the documents show is run: their blocks of code, and a system in which their commands make sense."""
