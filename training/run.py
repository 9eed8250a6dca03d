"""One stage's run: its folder, its checkpoints, its journal. Stopping at any moment loses at most a few minutes.

DIR/<stage>/last.pt       weights, optimizer, step, random state; written beside and renamed
DIR/<stage>/journal.jsonl a line per report
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

State = dict[str, Any]


@dataclass
class Run:
    """Bookkeeping of a stage; `state` gives and `restore` takes everything that must survive."""

    folder: Path
    state: Callable[[], State]
    restore: Callable[[State], None]
    total_steps: int
    save_every_s: float = 180.0
    is_silent: bool = False  # one of several processes, which leaves files and reports to another
    step: int = 0
    seconds: float = 0.0
    _last_save: float = field(default_factory=time.monotonic)
    _last_tick: float = field(default_factory=time.monotonic)
    _is_stopped: bool = False
    _stop_at: int | None = None

    def resume(self) -> bool:
        """Load the last checkpoint if there is one; from now on SIGTERM saves and ends the process."""
        signal.signal(signal.SIGTERM, self._ask_to_stop)
        path = self.folder / "last.pt"
        if not path.is_file():
            return False
        saved = torch.load(path, weights_only=False, map_location="cpu")
        self.step, self.seconds = saved["step"], saved["seconds"]
        self.restore(saved["state"])
        return True

    def stop_after(self, steps: int) -> None:
        """Save and end the process after so many steps, as SIGTERM would."""
        self._stop_at = steps

    def _ask_to_stop(self, *_: object) -> None:
        self._is_stopped = True

    def tick(self) -> bool:
        """Count a step, save when it is time; False when the stage is done."""
        self.step += 1
        if self.step == self._stop_at:
            self._is_stopped = True
        now = time.monotonic()
        self.seconds += now - self._last_tick
        self._last_tick = now
        if self._is_stopped or now - self._last_save > self.save_every_s or self.step >= self.total_steps:
            self.save()
        if self._is_stopped:
            sys.exit(0)
        return self.step < self.total_steps

    def save(self) -> None:
        """Write the checkpoint beside the old one, then rename."""
        if self.is_silent:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "last.pt"
        part = path.with_suffix(".part")
        torch.save({"step": self.step, "seconds": self.seconds, "state": self.state()}, part)
        os.replace(part, path)
        self._last_save = time.monotonic()

    def report(self, **values: Any) -> None:
        """Append a line to the journal and print it."""
        if self.is_silent:
            return
        rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in values.items()}
        line = json.dumps({"step": self.step, "seconds": round(self.seconds), **rounded})
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "journal.jsonl").open("a") as journal:
            journal.write(line + "\n")
        print(time.strftime("%H:%M:%S"), self.folder.name, line, flush=True)


def load_state(folder: Path) -> State:
    """The state of a stage's last checkpoint. Raises FileNotFoundError where the stage has not run."""
    return torch.load(folder / "last.pt", weights_only=False, map_location="cpu")["state"]


def schedule(step: int, total: int, warmup: int = 50, floor: float = 0.05, decay: float = 0.4) -> float:
    """Linear warm-up, a plateau, then a linear decay over the last `decay` of the steps down to `floor`."""
    if step < warmup:
        return (step + 1) / warmup
    start = total * (1 - decay)
    if step <= start:
        return 1.0
    return max(floor, 1 - (1 - floor) * (step - start) / (total - start))
