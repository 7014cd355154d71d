"""Tests of the SDK's connection."""
