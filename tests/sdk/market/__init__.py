"""Tests of the SDK's market."""
