"""The one connection of a client: opening, maintaining and reopening it."""
