"""The one connection of a client: opened, kept, and reopened."""
