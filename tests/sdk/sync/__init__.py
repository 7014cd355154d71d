"""Tests of the SDK's blocking client."""
