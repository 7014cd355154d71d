"""Tests of the SDK's readers."""
