"""Connection state recovery: resume tickets, checkpoints, and what a resumed client missed."""
