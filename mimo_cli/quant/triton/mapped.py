"""Records that stay in the host's pinned memory but have slot numbers of a card's pool: kernels read them over the bus.

A slot number times the length of a slot, counted from the pool's beginning, is an address; a card sees pinned memory at
the host's addresses. So an expert that is in no slot can be computed where it lies, beside those of the pool and in the
same launch, without the host in between: what it costs is the bus. Untested on a card.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

_INT32_MAX = 2**31 - 1


@dataclass(frozen=True)
class MappedRecords:
    """base uint8 [slots, bytes]: what kernels are given as `slots`, its address the lower one of pool and host.

    pool_slot: number of the pool's first slot, host_slot: of the host's first record. records uint8 [n, bytes], pinned.
    """

    base: Tensor
    pool_slot: int
    host_slot: int
    records: Tensor


def map_records(pool: Tensor, count: int) -> MappedRecords:
    """Return room for `count` records in pinned memory, numbered like the slots of pool uint8 [S, bytes].

    A slot more than that is allocated: records begin where the distance to the pool is a whole number of slots.
    Raises ValueError where the distance is more slots than an int32 can count.
    """
    slot_bytes = pool.shape[1]
    memory = torch.empty((count + 1) * slot_bytes, dtype=torch.uint8, pin_memory=pool.is_cuda)
    skip = (pool.data_ptr() - memory.data_ptr()) % slot_bytes
    records = memory[skip : skip + count * slot_bytes].view(count, slot_bytes)
    distance = (records.data_ptr() - pool.data_ptr()) // slot_bytes
    if abs(distance) + max(count, len(pool)) > _INT32_MAX:
        raise ValueError(f"pinned memory lies {distance} slots from the pool, too far for a slot's number")
    if distance >= 0:
        return MappedRecords(pool, 0, distance, records)
    return MappedRecords(records, -distance, 0, records)
