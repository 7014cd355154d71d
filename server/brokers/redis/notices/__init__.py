"""Critical notices, stored in Redis until acknowledged."""
