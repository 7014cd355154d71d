"""Tests of plain HTTP, in the process."""
