"""The tests of the HTTP API."""
