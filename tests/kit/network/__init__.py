"""Networks that misbehave, proxies, certificates, hostile input."""
