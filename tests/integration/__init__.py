"""Tests on real servers with real worker processes and real signals."""
