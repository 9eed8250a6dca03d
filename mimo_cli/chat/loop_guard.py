"""Notices when a model repeats itself: the same block of 40 tokens or more, three times in a row."""


class LoopGuard:
    """Watches generated ids for a block of at least block_tokens that comes `repeats` times in a row."""

    def __init__(self, block_tokens: int = 40, repeats: int = 3) -> None:
        self._block_tokens = block_tokens
        self._repeats = repeats
        self.reset()

    def reset(self) -> None:
        """Forget everything seen."""
        self._ids: list[int] = []
        # Where each run of block_tokens ids ended last: a run seen before gives the length of the block to compare.
        # Hashes are enough (and forty times smaller): the comparison itself is exact.
        self._last_end: dict[int, int] = {}

    def push(self, token_id: int) -> bool:
        """Take the next id; tell whether the ids now end in a repeated block."""
        self._ids.append(token_id)
        end = len(self._ids)
        if end < self._block_tokens:
            return False
        run = hash(tuple(self._ids[-self._block_tokens :]))
        before = self._last_end.get(run)
        self._last_end[run] = end
        return before is not None and self._repeats_with(end - before)

    def _repeats_with(self, period: int) -> bool:
        """Compare the last blocks; a short period counts by its multiples of at least block_tokens."""
        block = -(-self._block_tokens // period) * period
        if len(self._ids) < block * self._repeats:
            return False
        last = self._ids[-block:]
        starts = (len(self._ids) - block * n for n in range(2, self._repeats + 1))
        return all(self._ids[start : start + block] == last for start in starts)
