"""Local servers that speak the public protocols of venues, as ccxt expects them."""
