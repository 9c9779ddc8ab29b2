"""Tests: real servers, real processes, real signals."""
