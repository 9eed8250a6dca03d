"""Who computes an expert that the card lacks: the processor, or the card after a copy. Arithmetic over measured times.

Both work at the same time, so the best share is the one where the slower of them is done soonest:

    processor   sum over its experts of (seconds per expert + seconds per row x rows)
    copies      seconds per expert x experts

For a token that is the usual split by bandwidths; for a long prompt all are copied, which is then a stream of whole
layers. Where that begins follows from the same times, so no length is written down anywhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass

_FADE = 0.9
_MOST_TOKENS = 1 << 20


@dataclass
class MissCosts:
    """Seconds, measured on this machine.

    copy_s      one expert from the host's memory into a slot, staging and all
    cpu_s       one expert on the processor, whatever its rows: reading its weights
    cpu_row_s   each row of it beside that
    """

    copy_s: float
    cpu_s: float
    cpu_row_s: float = 0.0

    def copies(self, rows: Sequence[int], most: int | None = None) -> int:
        """Return how many of some experts to copy, at most `most`. `rows` of each must be descending: the first are the
        ones to copy, because the others cost the processor less."""
        left_s = sum(self._cpu(count) for count in rows)
        best, best_s = 0, left_s
        for number, count in enumerate(rows[:most], start=1):
            left_s -= self._cpu(count)
            done_s = max(number * self.copy_s, left_s)
            if done_s < best_s:
                best, best_s = number, done_s
        return best

    def is_stream_faster(self, rows: Sequence[int], most: int) -> bool:
        """Tell whether to copy them all, one group behind the other, rather than at most `most` of them."""
        shared = self.copies(rows, most)
        return len(rows) * self.copy_s < max(shared * self.copy_s, sum(self._cpu(count) for count in rows[shared:]))

    def stream_tokens(self, experts: int, active: int, most: int, resident: float = 0.0) -> int | None:
        """Return the shortest prompt whose layers are streamed whole, experts used evenly; None where none is.

        experts: of a layer; active: of a token; resident: the share that needs no copy.
        """

        def streams(tokens: int) -> bool:
            used = experts * (1 - (1 - active / experts) ** tokens)
            missing = max(1, round(used * (1 - resident)))
            return self.is_stream_faster([max(1, round(tokens * active / used))] * missing, most)

        low, high = 1, _MOST_TOKENS
        if not streams(high):
            return None
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if streams(middle) else (middle + 1, high)
        return low

    def note_cpu(self, seconds: float, experts: int, rows: int) -> None:
        """Correct the processor's times by what some experts took."""
        expected = experts * self.cpu_s + rows * self.cpu_row_s
        if seconds <= 0 or expected <= 0:
            return
        factor = _FADE + (1 - _FADE) * min(10.0, seconds / expected)
        self.cpu_s *= factor
        self.cpu_row_s *= factor

    def _cpu(self, rows: int) -> float:
        return self.cpu_s + rows * self.cpu_row_s
