"""Tests of the commands that work with a running server."""
