"""Provide clients for tests: raw, stock, JavaScript, browser and SDK."""
