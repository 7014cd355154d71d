"""Critical notices, kept in Redis until they are acknowledged."""
