"""AheadControl: whether reading ahead pays. It is tried, judged by what was used, and paused where it does not.

A read that nobody wanted keeps the disk from one that somebody waits for, so a good part of them must be used.
"""

READS_PER_LAYER = 8
"""Experts queued ahead of a layer at most. They wait behind all that a step needs; few are begun before the router has
spoken, and the rest is taken back."""

_TRIAL_READS = 32
_LEAST_USED = 0.4
_PAUSE_LAYERS = 2048


class AheadControl:
    """Judges trials of so many reads; `is_on` says whether the next layer may be guessed."""

    def __init__(self) -> None:
        self._pause = 0
        self._begun = (0, 0)

    def is_on(self, prefetched: int, used: int) -> bool:
        """Return whether to read ahead now, given the sums so far of experts read ahead and of those used."""
        if self._pause:
            self._pause -= 1
            self._begun = prefetched, used
            return False
        tried = prefetched - self._begun[0]
        if tried >= _TRIAL_READS:
            if used - self._begun[1] < _LEAST_USED * tried:
                self._pause = _PAUSE_LAYERS
            self._begun = prefetched, used
        return not self._pause
