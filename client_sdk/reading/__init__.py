"""Reading topics and sessions: shared subscriptions, buffers, gap detection."""
