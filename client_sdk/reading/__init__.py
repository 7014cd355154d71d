"""Reading topics and sessions: shared subscriptions, gap tracking, buffers, streams."""
