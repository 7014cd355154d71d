"""The log of one topic or session: entries, positions, history, idempotency, lag."""
