"""Connection state recovery: tickets, checkpoints, and what a resumed client missed."""
