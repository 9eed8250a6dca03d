"""A card that is only simulated: its two queues are drained at random moments, so that what is not ordered goes wrong.

Computing happens in the order in which it was asked for, but some time later; every upload is a queue of its own, takes
place in two halves with anything between them, and reads its staging buffer when it happens, not when it was asked for.
New memory is full of bytes that no weight has. Experts are computed by the processor's kernels: whatever was ordered
rightly has the bits of the expert store.
"""

import random
from collections import deque
from collections.abc import Callable, Collection

import torch
from torch import Tensor

from mimo_cli.quant.buffers import allocate_bytes
from mimo_cli.quant.kernels import ExpertPairs, Kernels, Precision
from mimo_cli.quant.packed import PackedShape
from mimo_cli.quant.slot_layout import SlotLayout

POISON = 0x7F


class SimulatedEvent:
    """Something that happens once."""

    def __init__(self) -> None:
        self.happened = False


class _Work:
    """Steps that follow one another, the first of them after an event; each in the mode of whoever asked for them."""

    def __init__(self, steps: list[Callable[[], None]], after: SimulatedEvent | None, is_slow: bool = False) -> None:
        self.steps, self.after, self.is_slow = deque(steps), after, is_slow
        self._is_inference = torch.is_inference_mode_enabled()

    def take(self) -> None:
        """Do the next step, if there is one."""
        if self.steps:
            with torch.inference_mode(self._is_inference):
                self.steps.popleft()()

    @property
    def is_ready(self) -> bool:
        return self.after is None or self.after.happened


class SimulatedDevice:
    """Satisfies ExpertDevice. `capacity_bytes` is its memory; `out_at` numbers allocations, from 0, that fail.

    pace: how much of what could happen does happen while the host does something else (0: only what it waits for, 1: a
    lot). slow: share of uploads that happen only when somebody waits for them.
    """

    name = "the simulated card"
    where = torch.device("cpu")

    def __init__(
        self,
        kernels: Kernels,
        precision: Precision,
        *,
        seed: int = 0,
        pace: float = 0.5,
        slow: float = 0.0,
        capacity_bytes: int = 1 << 34,
        out_at: Collection[int] = (),
    ) -> None:
        self.kernels, self.precision = kernels, precision
        self.capacity_bytes = capacity_bytes
        self.out_at = set(out_at)
        self.allocations = 0
        self.uploads = 0
        self.calls = 0
        self.fails_at: set[int] = set()
        self.used_bytes = 0
        self._random = random.Random(seed)
        self._pace, self._slow = pace, slow
        self._computing: deque[_Work] = deque()
        self._uploads: list[_Work] = []

    def free_bytes(self) -> int:
        """What nobody has taken."""
        return self.capacity_bytes - self.used_bytes

    def total_bytes(self) -> int:
        """All of it."""
        return self.capacity_bytes

    def allocate(self, nbytes: int) -> Tensor:
        """Poisoned memory, or none."""
        number, self.allocations = self.allocations, self.allocations + 1
        if number in self.out_at or nbytes > self.free_bytes():
            raise torch.OutOfMemoryError(f"{nbytes} bytes")
        self.used_bytes += nbytes
        return allocate_bytes(nbytes).fill_(POISON)

    def allocate_staging(self, nbytes: int) -> Tensor:
        """Poisoned memory of the host."""
        return allocate_bytes(nbytes).fill_(POISON)

    def release(self) -> None:
        """Everything is done and freed: whoever calls this has let his tensors go."""
        self._drain(lambda: not self._computing and not self._uploads)
        self.used_bytes = 0

    def upload(self, source: Tensor, target: Tensor, after: SimulatedEvent) -> SimulatedEvent:
        """Two halves, some time after an event."""
        assert isinstance(after, SimulatedEvent) and source.shape == target.shape
        done, middle = SimulatedEvent(), len(source) // 2
        steps: list[Callable[[], None]] = [
            lambda: _copy(target[middle:], source[middle:]),
            lambda: _copy(target[:middle], source[:middle]),
            lambda: _happen(done),
        ]
        self.uploads += 1
        self._uploads.append(_Work(steps, after, self._random.random() < self._slow))
        self._work_on()
        return done

    def record(self) -> SimulatedEvent:
        """An event at the end of computing."""
        event = SimulatedEvent()
        self._computing.append(_Work([lambda: _happen(event)], None))
        self._work_on()
        return event

    def wait(self, event: SimulatedEvent) -> None:
        """Computing goes on after an event."""
        assert isinstance(event, SimulatedEvent)
        self._computing.append(_Work([], event))
        self._work_on()

    def is_done(self, event: SimulatedEvent) -> bool:
        """Has it happened?"""
        self._work_on()
        return event.happened

    def join(self, event: SimulatedEvent) -> None:
        """Let things happen until it has."""
        self._drain(lambda: event.happened)

    def run(self, work: Callable[[], None]) -> None:
        """Some time later, in order."""
        self._computing.append(_Work([work], None))
        self._work_on()

    def add_experts(
        self,
        hidden: Tensor,
        ids: Tensor,
        weights: Tensor,
        table: Tensor,
        slots: Tensor,
        layout: SlotLayout,
        out: Tensor,
    ) -> None:
        """By the processor's kernels, experts in ascending order."""
        number, self.calls = self.calls, self.calls + 1
        if number in self.fails_at:
            raise torch.OutOfMemoryError("a step")
        flat = ids.reshape(-1)
        of_pairs = table[flat]  # [P]
        experts = flat[of_pairs >= 0].unique()  # ascending
        if not len(experts):
            return
        places = torch.searchsorted(experts, flat).clamp(max=len(experts) - 1)
        here = (of_pairs >= 0).nonzero().squeeze(1)
        here = here[places[here].argsort(stable=True)]
        shape = PackedShape(layout.format, layout.group, layout.width, layout.hidden_size, 2)
        starts = [slots.data_ptr() + int(table[expert]) * slots.stride(0) for expert in experts.tolist()]
        pairs = ExpertPairs(
            (here // ids.shape[1]).to(torch.int32),
            places[here].to(torch.int32),
            weights.reshape(-1)[here].contiguous(),
        )
        x, total = hidden.float().contiguous(), out if out.is_contiguous() else out.contiguous()
        self.kernels.moe(shape, starts, [at + shape.nbytes for at in starts], pairs, x, total, self.precision)
        if total is not out:
            out.copy_(total)

    def finish(self, result: Tensor) -> Tensor:
        """The processor reads it: all computing must be done."""
        self._drain(lambda: not self._computing)
        return result

    def _work_on(self) -> None:
        while self._random.random() < self._pace:
            if not self._step(is_needed=False):
                return

    def _drain(self, is_over: Callable[[], bool]) -> None:
        while not is_over():
            if not self._step(is_needed=True):
                raise RuntimeError("the device stands still: something waits for what will never happen")

    def _step(self, *, is_needed: bool) -> bool:
        """Do one thing that can be done; returns False where there is none."""
        ready = [work for work in self._uploads if work.is_ready and (is_needed or not work.is_slow)]
        if self._computing and self._computing[0].is_ready:
            ready.append(self._computing[0])
        if not ready:
            return False
        work = self._random.choice(ready)
        is_last = len(work.steps) <= 1
        if is_last and self._computing and work is self._computing[0]:
            self._computing.popleft()
        elif is_last:
            self._uploads.remove(work)
        work.take()
        return True


def _copy(target: Tensor, source: Tensor) -> None:
    target.copy_(source)


def _happen(event: SimulatedEvent) -> None:
    event.happened = True
