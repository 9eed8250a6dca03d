"""`mimo` as a program of its own whose expert reads are slow: `python -m tests.support.slow_disk_mimo FOLDER READ ...`.

Memory holds three experts only, so that every token reads some. Read number READ, counted from 0, takes three seconds;
`FOLDER/reading` appears when it begins. Whoever waits for that file can press Ctrl-C while an expert is being read. All
else is the program as it is.
"""

import os
import sys
import threading
import time
from pathlib import Path

SLOTS = 3
HELD_S = 3.0
_READ_S = 0.005


def main() -> int:
    """Run `mimo` with the rest of the command line."""
    marker, held = Path(sys.argv[1]) / "reading", int(sys.argv[2])
    read_at, lock, numbers = os.preadv, threading.Lock(), iter(range(10**9))

    def slow_read(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        with lock:
            number = next(numbers)
        if number == held:
            marker.touch()
        time.sleep(HELD_S if number == held else _READ_S)
        return read_at(descriptor, buffers, offset)

    os.preadv = slow_read  # type: ignore[assignment]  # before anything takes it

    from mimo_cli.app import main as mimo
    from mimo_cli.offload.expert_store import ExpertStore

    allot = ExpertStore.allot

    def allot_few(self: ExpertStore, resident_bytes: int) -> None:
        allot(self, SLOTS * self.source.slot_bytes)

    ExpertStore.allot = allot_few  # type: ignore[method-assign]
    return mimo(sys.argv[3:])


if __name__ == "__main__":
    sys.exit(main())
