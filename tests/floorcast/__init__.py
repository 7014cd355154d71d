"""Tests of the package that users import, and of its command."""
