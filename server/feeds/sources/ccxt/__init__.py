"""The feed `ccxt`: prices, trades and books of a venue. Import it from `feed`: ccxt is large."""
