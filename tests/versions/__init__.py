"""Two releases of one application, each installed in an environment of its own."""
