"""Rigs: parts of the server assembled without sockets, and clusters of them."""
