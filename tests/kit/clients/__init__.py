"""Clients for tests: raw, stock, JavaScript, browser, SDK."""
