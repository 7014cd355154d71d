"""Delivery: from one published entry to every subscriber's link."""

from server.delivery.fanout import Fanout

__all__ = ["Fanout"]
