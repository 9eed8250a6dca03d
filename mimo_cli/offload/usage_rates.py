"""UsageRates: how often each expert is expected to be asked for, learned while running. Knows keys and steps only.

Every use is remembered in several frequencies that fade at different speeds. What is expected of an expert is a sum of
its frequencies, and how much each has to say is learned: every few steps, least squares compare what they said with
what was then used. Text that repeats itself teaches the fast ones, experts popular for ever the slow ones, and no
setting has to know which it will be.
"""

import numpy as np
from numpy.typing import NDArray

HALF_LIVES = (2.0, 8.0, 32.0, 128.0)
"""Steps after which a use counts half in each frequency."""

LESSON_STEPS = 4
"""Steps over which uses are counted before frequencies are compared with them."""

_FIRST_WEIGHTS = (0.1, 0.25, 0.45, 0.2)
"""How much each frequency has to say before anything was learned."""

_FADE = 0.9  # per lesson: what was learned long ago counts less
_FIRST_LESSONS = 2  # frequencies that have seen next to nothing teach nothing
_RIDGE = 1e-5  # of the mean square: keeps the weights small where frequencies say the same
_MOST_DOUBLINGS = 500.0

Floats = NDArray[np.float64]
Keys = NDArray[np.int64]


class UsageRates:
    """Frequencies of `keys` experts. Steps never fall; uses of one step may be noted in parts."""

    def __init__(self, keys: int) -> None:
        self._half_lives = np.array(HALF_LIVES)
        # A frequency is stored as it would be had nothing faded since step `_base`: fading then costs nothing.
        self._stored = np.zeros((len(HALF_LIVES), keys))
        self._base = self._step = 0
        self._weights = np.array(_FIRST_WEIGHTS)
        self._squares = np.zeros((len(HALF_LIVES), len(HALF_LIVES)))
        self._products = np.zeros(len(HALF_LIVES))
        self._lessons = 0
        self._before = np.zeros_like(self._stored)  # frequencies when the present lesson began
        self._uses = np.zeros(keys)  # uses since then
        self._lesson_began = 0
        self._is_lesson = False

    def note(self, keys: Keys, step: int, shares: Floats | float = 1.0, tokens: int = 1) -> None:
        """Note uses at a step: of one token, or of a prompt of several that sent a share of them to each key."""
        if step != self._step:
            self._advance(step, is_prompt=tokens > 1)
        doublings = (step - self._base) / self._half_lives
        gains = (1 - 0.5 ** (tokens / self._half_lives)) * 2**doublings
        self._stored[:, keys] += gains[:, None] * np.broadcast_to(np.asarray(shares, float), keys.shape)
        self._uses[keys] += 1

    def expected(self, keys: Keys) -> Floats:
        """Return the expected uses per step, [keys]; only their order means much, and they may be below 0."""
        found: Floats = (self._weights * self._fading()) @ self._stored[:, keys]
        return found

    def frequency(self) -> Floats:
        """Return the uses per step of every expert, as the slowest frequency has them."""
        found: Floats = self._stored[-1] * self._fading()[-1]
        return found

    def remember(self, keys: Keys, rates: Floats) -> None:
        """Begin with uses per step that were seen elsewhere; they fade like any other."""
        self._stored[:, keys] = np.clip(np.nan_to_num(rates), 0, 1)[None, :] / self._fading()[:, None]
        self._is_lesson = False

    def _fading(self) -> Floats:
        found: Floats = 0.5 ** ((self._step - self._base) / self._half_lives)
        return found

    def _advance(self, step: int, *, is_prompt: bool) -> None:
        """Go to a step; a lesson ends after LESSON_STEPS of them, and a prompt teaches nothing about single tokens."""
        self._step = step
        if (step - self._base) / self._half_lives[0] > _MOST_DOUBLINGS:
            self._stored *= self._fading()[:, None]
            self._base = step
        if is_prompt:
            self._is_lesson = False
        elif not self._is_lesson:
            self._begin_lesson()
        elif step - self._lesson_began >= LESSON_STEPS:
            self._learn()
            self._begin_lesson()

    def _begin_lesson(self) -> None:
        np.multiply(self._stored, self._fading()[:, None], out=self._before)
        self._uses[:] = 0
        self._lesson_began, self._is_lesson = self._step, True

    def _learn(self) -> None:
        self._squares = self._squares * _FADE + self._before @ self._before.T
        self._products = self._products * _FADE + self._before @ self._uses
        self._lessons += 1
        size = np.trace(self._squares)
        if self._lessons > _FIRST_LESSONS and size > 0:
            ridge = _RIDGE * size * np.eye(len(self._weights))
            weights = np.linalg.solve(self._squares + ridge, self._products) / LESSON_STEPS
            if weights.sum() > 0:
                self._weights = weights
