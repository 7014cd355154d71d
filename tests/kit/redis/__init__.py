"""Redis servers for tests, and the documented access rights."""
