"""CudaDevice: a CUDA card as the expert tier asks for it. Written for a card, and never run on one so far: untested.

Computing is torch's current stream, uploads have a stream of their own, staging buffers are pinned. Everything that
decides stands above and is tested with a device that is only simulated; what is left here are calls of torch.
Imported only where a card is used, since it brings the Triton kernels.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from mimo_cli.errors import CapacityError
from mimo_cli.offload.device import Event
from mimo_cli.quant.slot_layout import SlotLayout

try:
    from mimo_cli.quant.triton.experts import decode_experts
    from mimo_cli.quant.triton.prefill import prefill_experts
except ImportError as error:
    decode_experts = prefill_experts = None  # type: ignore[assignment]
    _missing = str(error)

FEW_TOKENS = 16
"""Tokens for which each expert multiplies a vector; more are sorted by experts and multiplied as matrices."""


class CudaDevice:
    """Satisfies ExpertDevice. Raises CapacityError where there are no kernels for it."""

    def __init__(self, where: torch.device) -> None:
        if decode_experts is None:
            raise CapacityError(
                f"experts cannot be computed on `{where}`: {_missing}",
                hint="install Triton (it comes with the CUDA wheels of torch), or use --device cpu",
            )
        self.where = where
        self.name = torch.cuda.get_device_name(where)
        self._uploads = torch.cuda.Stream(where)

    def free_bytes(self) -> int:
        """Return what the driver has free, and what torch holds without using it."""
        held = torch.cuda.memory_reserved(self.where) - torch.cuda.memory_allocated(self.where)
        return int(torch.cuda.mem_get_info(self.where)[0]) + held

    def total_bytes(self) -> int:
        """Return the memory of the card."""
        return int(torch.cuda.mem_get_info(self.where)[1])

    def allocate(self, nbytes: int) -> Tensor:
        """Return memory of the card. Raises torch.OutOfMemoryError."""
        return torch.empty(nbytes, dtype=torch.uint8, device=self.where)

    def allocate_staging(self, nbytes: int) -> Tensor:
        """Return pinned memory."""
        return torch.empty(nbytes, dtype=torch.uint8, pin_memory=True)

    def release(self) -> None:
        """Wait for everything and give torch's unused memory back to the driver."""
        torch.cuda.synchronize(self.where)
        torch.cuda.empty_cache()

    def upload(self, source: Tensor, target: Tensor, after: Event) -> Event:
        """Copy on the stream of uploads."""
        self._uploads.wait_event(after)
        with torch.cuda.stream(self._uploads):
            target.copy_(source, non_blocking=True)
        done = torch.cuda.Event()
        done.record(self._uploads)
        return done

    def record(self) -> Event:
        """Record an event on the current stream."""
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self.where))
        return event

    def wait(self, event: Event) -> None:
        """Let the current stream wait."""
        torch.cuda.current_stream(self.where).wait_event(event)

    def is_done(self, event: Event) -> bool:
        """Query an event."""
        return bool(event.query())

    def join(self, event: Event) -> None:
        """Wait for an event."""
        event.synchronize()

    def run(self, work: Callable[[], None]) -> None:
        """Do it: torch puts it on the current stream."""
        work()

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
        """Call the Triton kernels: one row at a time for a few tokens, matrices for many."""
        compute = decode_experts if len(ids) <= FEW_TOKENS * max(1, 8 // ids.shape[1]) else prefill_experts
        out += compute(hidden, ids, weights, table, slots, layout, out_dtype=torch.float32)

    def finish(self, result: Tensor) -> Tensor:
        """Return it: whatever follows on the current stream is in order."""
        return result
