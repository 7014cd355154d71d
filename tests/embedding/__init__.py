"""Tests of the parts that an application adds to the server."""
