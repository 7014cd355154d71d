"""Session services: joining and leaving, local presence, messages and notices."""
