"""The backend inside one process: everything is gone when the process ends."""
