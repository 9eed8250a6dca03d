"""FirstExperts: which experts a token's first layer will visit, before its router has spoken. Knows ids only.

At a token's start nobody has routed yet, and the disk would be idle until attention and dense layers before the first
experts are computed. What such a layer chooses depends most on the token itself. Right guesses in two models of random
weights, of 600 each, where chance is 25 %: what it chose for the same token before 94 and 63 %; its router, asked with
the bare embedding, 71 and 33 %; the most popular 34 and 45 %; those of the token before 26 and 36 %.
"""

from collections.abc import Callable, Collection, Sequence

from mimo_cli.offload.ahead import AheadControl

MOST_TOKENS = 1 << 14
"""Different tokens remembered, some megabytes; the first ones are forgotten first."""


class FirstExperts:
    """Learns from every decoded token. Guesses are paused where too few of them are right."""

    def __init__(self) -> None:
        self._chosen: dict[int, tuple[int, ...]] = {}
        self._token: int | None = None
        self._guessed: frozenset[int] = frozenset()
        self._control = AheadControl()
        self._read = 0
        self._used = 0

    def guess(self, token: int, ask: Callable[[], Sequence[int]], held: Callable[[int], bool]) -> list[int]:
        """Return the experts to read ahead for a token that begins; none while guessing does not pay.

        ask: what to guess for a token never seen. held: whether an expert is in memory already.
        """
        self._token, self._guessed = token, frozenset()
        if not self._control.is_on(self._read, self._used):
            return []
        missing = [expert for expert in self._chosen.get(token) or ask() if not held(expert)]
        self._guessed = frozenset(missing)
        return missing

    def learn(self, experts: Collection[int]) -> None:
        """Note what the first layer chose for the token that began last."""
        if self._token is None:
            return
        self._read += len(self._guessed)
        self._used += len(self._guessed.intersection(experts))
        if self._token not in self._chosen and len(self._chosen) >= MOST_TOKENS:
            del self._chosen[next(iter(self._chosen))]
        self._chosen[self._token] = tuple(experts)
        self._token, self._guessed = None, frozenset()
