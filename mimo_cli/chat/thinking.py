"""Keeps reasoning in bounds: a budget of tokens, a watch for loops, and an end on request.

It only decides; the engine does the forcing: `ThinkingControl` is called with the tokens generated so far and returns
the ids that must come next, mostly none.
"""

from collections.abc import Sequence
from typing import Literal

from mimo_cli.chat.loop_guard import LoopGuard
from mimo_cli.chat.reasoning import THINK_END, THINK_START
from mimo_cli.chat.tokenizer import Tokenizer


class ThinkingControl:
    """Watches one answer. budget_tokens bounds the reasoning (None: no bound); guard None switches the loop watch off.

    `thinking_tokens` counts reasoning so far; `loop` says where a loop was found. One found in the reasoning ends it;
    one in the answer is the caller's to act on.
    """

    def __init__(
        self, tokenizer: Tokenizer, *, budget_tokens: int | None = None, guard: LoopGuard | None = None
    ) -> None:
        self._tokenizer = tokenizer
        self._start_id = tokenizer.added_tokens.get(THINK_START)
        self._end_id = tokenizer.added_tokens.get(THINK_END)
        self._budget_tokens = budget_tokens
        self._guard = guard
        self._state: Literal["start", "thinking", "answer"] = "start"
        self._num_seen = 0
        self._wants_end = False
        self.thinking_tokens = 0
        self.loop: Literal["thinking", "answer"] | None = None

    @property
    def is_thinking(self) -> bool:
        """Tell whether the tokens seen so far end inside reasoning."""
        return self._state == "thinking"

    def end_thinking(self) -> None:
        """Ask for the end of the reasoning that is under way or about to begin: the answer comes next."""
        self._wants_end = True

    def __call__(self, tokens: Sequence[int]) -> tuple[int, ...]:
        """Look at the tokens that are new; return the ids that must come next."""
        for token_id in tokens[self._num_seen :]:
            self._see(token_id)
        self._num_seen = len(tokens)
        if self._state != "thinking" or self._end_id is None:
            return ()
        spent = self._budget_tokens is not None and self.thinking_tokens >= self._budget_tokens
        return (self._end_id,) if spent or self._wants_end or self.loop == "thinking" else ()

    def _see(self, token_id: int) -> None:
        if self._state == "thinking" and token_id == self._end_id:
            self._state = "answer"
            if self._guard:
                self._guard.reset()
        elif self._state == "start" and token_id == self._start_id:
            self._state = "thinking"
        elif self._state == "start" and self._tokenizer.token_bytes(token_id).strip():
            self._state = "answer"
        elif self._state == "thinking":
            self.thinking_tokens += 1
        if self._guard and self._guard.push(token_id) and self.loop != "answer":
            self.loop = "thinking" if self._state == "thinking" else "answer"
