"""The client without `await`: the same names, for scripts and notebooks."""
