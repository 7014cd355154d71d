"""The server's rules and state, without an event loop, a clock or a socket."""
