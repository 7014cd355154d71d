"""The Floorcast server: publishing, sessions and presence over Socket.IO."""
