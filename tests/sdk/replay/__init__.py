"""Tests of `client_sdk.replay`."""
