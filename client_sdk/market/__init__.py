"""The market: topics, order books, publishing."""
