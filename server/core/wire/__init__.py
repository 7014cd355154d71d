"""Bytes and text on the wire: WebSocket frames, Socket.IO packets, strict JSON."""
