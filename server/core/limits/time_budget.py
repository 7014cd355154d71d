"""Counts the time that one connection takes of the event loop."""

# What a connection may take at once, and in the long run, before it waits for others; the first
# one is less while many ask for more than there is.
BUDGET_SECONDS = 0.002
TIGHT_BUDGET_SECONDS = 0.0005
_SHARE = 0.01
# A connection that has stopped is forgiven after two seconds, whatever it took before.
_MAX_USED_SECONDS = BUDGET_SECONDS + 2.0 * _SHARE
# A packet that takes longer is expensive, or the process had to wait for its core.
_SUSPICIOUS_SECONDS = 0.0005
# How many cheap packets clear a connection of the suspicion.
_CHEAP_PACKETS = 32


class TimeBudget:
    """The used time, which decays at a steady rate; callers pass the time.

    Reading the CPU time costs more than many packets do. So it is asked for only while a
    connection `is_suspect`: after a packet that took long by the clock, which may have been
    someone else's fault.
    """

    __slots__ = ("_suspicion", "_updated_at", "_used_seconds")

    def __init__(self, now: float) -> None:
        self._used_seconds = 0.0
        self._suspicion = 0
        self._updated_at = now

    @property
    def is_suspect(self) -> bool:
        """Whether `spend` needs the CPU time."""
        return self._suspicion > 0

    def spend(self, began: float, ended: float, cpu_seconds: float | None = None) -> None:
        """Count the time from `began` to `ended`, or the given CPU time instead."""
        seconds = ended - began if cpu_seconds is None else cpu_seconds
        if seconds > _SUSPICIOUS_SECONDS:
            self._suspicion = _CHEAP_PACKETS
            if cpu_seconds is None:
                seconds = _SUSPICIOUS_SECONDS
        elif self._suspicion:
            self._suspicion -= 1
        used = self._used_seconds - (began - self._updated_at) * _SHARE
        # Runs for every packet; min() and max() would be half of its cost.
        if used < 0.0:
            used = 0.0
        used += seconds
        if used > _MAX_USED_SECONDS:
            used = _MAX_USED_SECONDS
        self._used_seconds = used
        self._updated_at = ended

    def is_spent(self, now: float, budget_seconds: float = BUDGET_SECONDS) -> bool:
        """Whether the connection must wait for others."""
        return (
            self._used_seconds > budget_seconds
            and self._used_seconds - (now - self._updated_at) * _SHARE > budget_seconds
        )
