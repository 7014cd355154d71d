"""Tests that every backend must pass, run with each of them."""
