"""SlotPolicy: which expert leaves when room is needed. Knows layers, experts and steps; nothing of bytes or files.

The same class runs inside the expert store and in replays of recorded routing. A step is a token: `step` rises by one
for each. The expert whose next use is expected last leaves. How likely a use is at the next step is learned while
running: experts are sorted by the age of their last use and by two decayed frequencies, and each such class counts how
often its members were used next. Text that repeats itself teaches recency, popular experts teach frequency, and no
setting has to know which it will be. Uses are remembered for experts that are not in memory, too.
"""

from bisect import insort
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

HALF_LIVES = (8.0, 64.0)
"""Steps after which a use counts half in the short and in the long frequency."""

LEARN_EVERY = 4
"""Steps from one lesson to the next of a layer that misses nothing; it counts for so many. A miss costs far more."""

_AGES, _RATES = 14, 12  # classes: half octaves of age, two thirds of an octave of frequency
_FADE = 0.995  # per step: what was learned long ago counts less
_LONG_AGO = -(10**6)
_LEAST_RATE = 1e-4


class SlotPolicy:
    """Slots 0 to `slots` - 1 for experts of some layers, `experts` in each.

    Every layer keeps `floor` slots that others cannot take from it, once it has them.
    """

    def __init__(self, slots: int, layers: Sequence[int], experts: int, floor: int = 0) -> None:
        self.slots = slots
        self.floor = floor
        self._experts = experts
        self._position = {layer: i for i, layer in enumerate(layers)}
        self._layers = tuple(layers)
        keys = len(layers) * experts
        self._rates = np.zeros((len(HALF_LIVES), keys))  # as of step `_last`
        self._last = np.full(keys, _LONG_AGO)
        rates = 2.0 ** -(np.arange(_RATES) / 1.5)
        # What is believed before anything is learned: that the next use is as likely as the uses so far were frequent.
        self._asked = np.ones((_AGES, _RATES, _RATES))
        self._used = np.broadcast_to((rates[:, None] + rates) / 2, self._asked.shape).copy()
        self._slot_of = np.full(keys, -1, np.int32)
        self._key_of = np.full(slots, -1, np.int32)
        self._held = np.zeros(len(layers), np.int32)  # slots of each layer
        self._step = 0
        self._now = 0  # position of the layer at work
        self._order: list[tuple[float, int]] | None = None  # steps until the next use, slot: the first to leave last

    def slot(self, layer: int, expert: int) -> int | None:
        """Return where an expert is, None if it is in no slot."""
        found = int(self._slot_of[self._key(layer, expert)])
        return None if found < 0 else found

    def holds(self, slot: int) -> tuple[int, int] | None:
        """Return the layer and expert in a slot, None if it is free."""
        key = int(self._key_of[slot])
        return None if key < 0 else (self._layers[key // self._experts], key % self._experts)

    def touch(self, layer: int, expert: int, step: int, share: float = 1.0, tokens: int = 1) -> None:
        """Note a use. A prompt of several `tokens` was sent to the expert with a `share` of them, 0 to 1."""
        self.touch_all(layer, [expert], step, [share], tokens)

    def touch_all(
        self, layer: int, experts: Sequence[int], step: int, shares: Sequence[float] | None = None, tokens: int = 1
    ) -> None:
        """Note that a layer used some different experts at a step."""
        if self.slots >= len(self._last):  # nobody ever leaves
            return
        position = self._position[layer]
        keys = position * self._experts + np.asarray(experts, np.int64)
        if tokens == 1:
            missed = bool((self._slot_of[keys] < 0).any())
            if missed or step % LEARN_EVERY == 0:
                self._learn(position, keys, step, 1 if missed else LEARN_EVERY)
            if position == 0:
                self._asked *= _FADE
                self._used *= _FADE
        uses = 1.0 if shares is None else np.asarray(shares)
        for rates, half_life in zip(self._rates, HALF_LIVES, strict=True):
            rates[keys] = rates[keys] * 0.5 ** ((step - self._last[keys]) / half_life) + uses * (
                1 - 0.5 ** (tokens / half_life)
            )
        self._last[keys] = step
        self._step, self._now = step, position
        self._order = None

    def place(self, slot: int, layer: int, expert: int) -> None:
        """Note that a slot, free or not, now holds an expert."""
        self.remove(slot)
        key = self._key(layer, expert)
        self._key_of[slot], self._slot_of[key] = key, slot
        self._held[key // self._experts] += 1
        if self._order is not None:
            insort(self._order, (float(self._waits(np.array([key]))[0]), slot))

    def remove(self, slot: int) -> None:
        """Note that a slot is free."""
        key = int(self._key_of[slot])
        if key >= 0:
            self._key_of[slot], self._slot_of[key] = -1, -1
            self._held[key // self._experts] -= 1

    def victim(self, protected: Collection[int] = ()) -> int | None:
        """Return the slot whose expert should leave, never one of `protected`; None where there is no such slot."""
        if self._order is None:
            slots = np.flatnonzero(self._key_of >= 0)
            waits = self._waits(self._key_of[slots].astype(np.int64))
            self._order = sorted(zip(waits.tolist(), slots.tolist(), strict=True))
        spared: int | None = None
        for at in range(len(self._order) - 1, -1, -1):
            slot = self._order[at][1]
            key = int(self._key_of[slot])
            if key < 0:  # left in the meantime
                del self._order[at]
            elif slot in protected:
                continue
            elif self._held[key // self._experts] > self.floor or key // self._experts == self._now:
                del self._order[at]
                return slot
            elif spared is None:
                spared = slot
        return spared  # nothing is left but what the floors protect

    def rate(self, layer: int, expert: int) -> float:
        """Return the expected uses per step."""
        return float(self._expected(np.array([self._key(layer, expert)]))[0])

    def best(self, count: int) -> list[tuple[int, int]]:
        """Return the experts used most often, most first: layer and expert."""
        rates = self._frequency()
        order = np.argsort(-rates, kind="stable")[:count]
        return [(self._layers[k // self._experts], int(k % self._experts)) for k in order if rates[k] > _LEAST_RATE]

    def usage(self) -> dict[int, list[float]]:
        """Return the uses per step of every expert by layer, to be given to `remember` in another run."""
        rows = self._frequency().reshape(len(self._layers), self._experts)
        return {layer: [round(float(rate), 4) for rate in row] for layer, row in zip(self._layers, rows, strict=True)}

    def remember(self, usage: dict[int, list[float]]) -> None:
        """Begin with what another run saw, where layers and experts agree. It fades like any other use."""
        for layer, row in usage.items():
            if layer in self._position and len(row) == self._experts:
                first = self._position[layer] * self._experts
                self._rates[:, first : first + self._experts] = np.clip(np.nan_to_num(np.asarray(row, float)), 0, 1)
                self._last[first : first + self._experts] = self._step
        self._order = None

    def _frequency(self) -> NDArray[np.float64]:
        """Return the long frequency of every expert as of now, [layers x experts]."""
        return self._rates[-1] * np.exp2((self._last - self._step) / HALF_LIVES[-1])

    def _key(self, layer: int, expert: int) -> int:
        return self._position[layer] * self._experts + expert

    def _classes(self, keys: NDArray[np.int64], step: int) -> tuple[NDArray[np.intp], ...]:
        """Return the class of each expert as seen before a step: age, short and long frequency."""
        elapsed = np.maximum(step - self._last[keys], 1)
        ages = np.minimum(2 * np.log2(elapsed), _AGES - 1).astype(np.intp)
        classes = [ages]
        for rates, half_life in zip(self._rates, HALF_LIVES, strict=True):
            decayed = rates[keys] * np.exp2((1 - elapsed) / half_life)
            classes.append(np.clip(-1.5 * np.log2(np.maximum(decayed, 1e-6)), 0, _RATES - 1).astype(np.intp))
        return tuple(classes)

    def _learn(self, position: int, used: NDArray[np.int64], step: int, weight: int) -> None:
        """Let all experts of a layer, used at this step or not, count in their classes."""
        first = position * self._experts
        classes = self._classes(np.arange(first, first + self._experts), step)
        uses = np.zeros(self._experts)
        uses[used - first] = weight
        np.add.at(self._asked, classes, weight)
        np.add.at(self._used, classes, uses)

    def _expected(self, keys: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the expected uses per step, [keys]."""
        classes = self._classes(keys, self._step + 1)
        expected: NDArray[np.float64] = self._used[classes] / self._asked[classes]
        return expected

    def _waits(self, keys: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the steps from now until the next expected use, [keys]."""
        layers = len(self._layers)
        ahead = ((keys // self._experts - self._now - 1) % layers + 1) / layers  # of a step, until the layer's turn
        waits: NDArray[np.float64] = 1 / np.maximum(self._expected(keys), _LEAST_RATE) + ahead
        return waits
