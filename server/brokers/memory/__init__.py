"""The backends of a single process; nothing survives its end."""
