"""Redis servers for tests, and the access rights that the documentation gives."""
