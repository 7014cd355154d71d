"""Shared sessions: joining and leaving, presence on this node, messages, notices."""
