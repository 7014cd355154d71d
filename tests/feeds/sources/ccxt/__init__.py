"""The feed `ccxt`, with the real library and venues on this machine."""
