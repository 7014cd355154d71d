"""The systems that feeds read, as real programs."""
