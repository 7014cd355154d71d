"""What tests share: a clock that they own, a real server, and a client that can misbehave."""
