"""The market: subscribing to topics, publishing into them, order books."""
