"""The file backend: restarts, kills, faults of the disk, repair."""
