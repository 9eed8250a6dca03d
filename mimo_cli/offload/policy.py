"""SlotPolicy: which expert leaves when room is needed. Knows layers, experts and steps; nothing of bytes or files.

The same class runs inside the expert store and in replays of recorded routing. A step is a token: `step` rises by one
for each. The expert whose next use is expected last leaves; what is expected is learned while running (usage_rates.py).
Uses are remembered for experts that are not in memory, too.
"""

from bisect import insort
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from mimo_cli.offload.usage_rates import UsageRates

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
        self._rates = UsageRates(keys)
        self._slot_of = np.full(keys, -1, np.int32)
        self._key_of = np.full(slots, -1, np.int32)
        self._held = np.zeros(len(layers), np.int32)  # slots of each layer
        self._now = 0  # position of the layer at work
        self._order: list[tuple[float, int]] | None = None  # steps until the next use, slot: the first to leave last

    def slot(self, layer: int, expert: int) -> int | None:
        """Return where an expert is, None if it is in no slot."""
        found = int(self._slot_of[self._key(layer, expert)])
        return None if found < 0 else found

    def layer_slots(self, layer: int) -> NDArray[np.int32]:
        """Return the slot of every expert of a layer, -1 for those in none: a view that changes with the slots."""
        first = self._key(layer, 0)
        return self._slot_of[first : first + self._experts]

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
        if self.slots >= len(self._slot_of):  # nobody ever leaves
            return
        position = self._position[layer]
        keys = position * self._experts + np.asarray(experts, np.int64)
        self._rates.note(keys, step, 1.0 if shares is None else np.asarray(shares), tokens)
        self._now = position
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

    def weakest(self, protected: Collection[int] = ()) -> tuple[int, float] | None:
        """Return the slot whose expert's next use is farthest, never one of `protected`, and the steps until then.

        Nothing is noted, and floors do not count: for who may still decide that nobody leaves.
        """
        slots = np.flatnonzero(self._key_of >= 0)
        if protected:
            slots = slots[~np.isin(slots, list(protected))]
        if not len(slots):
            return None
        waits = self._waits(self._key_of[slots].astype(np.int64))
        place = int(waits.argmax())
        return int(slots[place]), float(waits[place])

    def wait(self, layer: int, expert: int) -> float:
        """Return the steps from now until an expert's next expected use."""
        return float(self._waits(np.array([self._key(layer, expert)]))[0])

    def rate(self, layer: int, expert: int) -> float:
        """Return the expected uses per step."""
        return float(self._rates.expected(np.array([self._key(layer, expert)]))[0])

    def best(self, count: int) -> list[tuple[int, int]]:
        """Return the experts used most often, most first: layer and expert."""
        rates = self._rates.frequency()
        order = np.argsort(-rates, kind="stable")[:count]
        return [(self._layers[k // self._experts], int(k % self._experts)) for k in order if rates[k] > _LEAST_RATE]

    def usage(self) -> dict[int, list[float]]:
        """Return the uses per step of every expert by layer, to be given to `remember` in another run."""
        rows = self._rates.frequency().reshape(len(self._layers), self._experts)
        return {layer: [round(float(rate), 4) for rate in row] for layer, row in zip(self._layers, rows, strict=True)}

    def remember(self, usage: dict[int, list[float]]) -> None:
        """Begin with what another run saw, where layers and experts agree. It fades like any other use."""
        for layer, row in usage.items():
            if layer in self._position and len(row) == self._experts:
                first = self._position[layer] * self._experts
                self._rates.remember(np.arange(first, first + self._experts), np.asarray(row, float))
        self._order = None

    def _key(self, layer: int, expert: int) -> int:
        return self._position[layer] * self._experts + expert

    def _waits(self, keys: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the steps from now until the next expected use, [keys]."""
        layers = len(self._layers)
        ahead = ((keys // self._experts - self._now - 1) % layers + 1) / layers  # of a step, until the layer's turn
        waits: NDArray[np.float64] = 1 / np.maximum(self._rates.expected(keys), _LEAST_RATE) + ahead
        return waits
