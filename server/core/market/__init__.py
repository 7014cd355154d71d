"""The market: topics, subscriptions, order books."""
