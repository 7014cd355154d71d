"""Channel logs in Redis: writing, reading, and subscribing without gaps."""
