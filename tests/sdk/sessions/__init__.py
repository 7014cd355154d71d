"""Tests of the SDK's sessions."""
