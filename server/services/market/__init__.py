"""Market services: topic subscriptions, publishing and order books."""
