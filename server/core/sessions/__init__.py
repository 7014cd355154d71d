"""Sessions: the registry, presence, membership, session events, notices."""
