"""The core: what the server knows and decides, without a loop, a clock or a socket."""
