"""Servers for tests: in the process, as processes, and scripted."""
