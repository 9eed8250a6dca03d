"""Progress on stderr: what is shown of a stage that takes time, and when.

A Stage is silent for half a second, then rewrites one line at most ten times a second: done, total, rate, time left.
Where stderr cannot rewrite a line, a stage that took longer than that leaves one line when it ends.
"""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Literal

from mimo_cli.terminal.console import Terminal
from mimo_cli.units import format_bytes, format_count, format_duration

Unit = Literal["bytes", "tok", "s", ""]

SILENT_S = 0.5
REDRAW_S = 0.1
_BAR_CELLS = 20


def progress_text(label: str, done: float, total: float | None, unit: Unit, elapsed_s: float, bar: bool = False) -> str:
    """Describe a running stage: `reading 6,144/16,384 tok 310 t/s eta 33 s`."""
    rate = done / elapsed_s if elapsed_s > 0 else 0.0
    parts = [label]
    if bar and total:
        filled = round(_BAR_CELLS * min(1.0, done / total))
        parts.append("[" + "#" * filled + "." * (_BAR_CELLS - filled) + "]")
    parts.append(_amount(done, total, unit))
    if rate > 0:
        parts.append(_rate(rate, unit))
    if total and 0 < done < total and rate > 0:
        left_s = (total - done) / rate
        parts.append(f"eta {left_s:.0f} s" if left_s < 60 else f"eta {format_duration(left_s)}")
    return " ".join(part for part in parts if part)


def finished_text(label: str, done: float, unit: Unit, elapsed_s: float) -> str:
    """Describe a stage that is over: `reading 16,384 tok in 52.9 s`."""
    amount = _amount(done, None, unit)
    return " ".join(part for part in (label, amount, "in", format_duration(elapsed_s)) if part)


def _amount(done: float, total: float | None, unit: Unit) -> str:
    if unit == "bytes":
        return format_bytes(done) if not total else _bytes_pair(done, total)
    if unit == "s":
        return _clock(done) if not total else f"{_clock(done)}/{_clock(total)}"
    if not done and not total:
        return ""
    counted = format_count(int(done)) if not total else f"{format_count(int(done))}/{format_count(int(total))}"
    return f"{counted} {unit}".rstrip()


def _bytes_pair(done: float, total: float) -> str:
    text_total, suffix = format_bytes(total).split(" ")
    factor = {"TB": 1e12, "GB": 1e9, "MB": 1e6, "kB": 1e3, "B": 1.0}[suffix]
    return f"{done / factor:.3g}/{text_total} {suffix}"


def _rate(rate: float, unit: Unit) -> str:
    if unit == "bytes":
        return f"{format_bytes(rate)}/s"
    if unit == "s":
        return f"{rate:.1f}x"
    return f"{rate:.3g} t/s" if unit == "tok" and rate < 100 else f"{rate:,.0f} t/s" if unit == "tok" else ""


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes:02d}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


class Stage:
    """One stage of work, a context manager: `with Stage(terminal, "reading", "tok") as stage: stage.update(1, 2)`."""

    def __init__(
        self,
        terminal: Terminal,
        label: str,
        unit: Unit = "",
        *,
        bar: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._terminal, self._label, self._unit, self._bar, self._clock = terminal, label, unit, bar, clock
        self._start_s = clock()
        self._drawn_s = self._start_s + SILENT_S - REDRAW_S
        self._done = 0.0

    def __enter__(self) -> "Stage":
        return self

    def update(self, done: float, total: float | None = None) -> None:
        """Tell how far the stage is; draws if it is time to."""
        self._done = done
        now_s = self._clock()
        if now_s - self._drawn_s >= REDRAW_S:
            self._drawn_s = now_s
            elapsed_s = now_s - self._start_s
            self._terminal.status(progress_text(self._label, done, total, self._unit, elapsed_s, self._bar))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish(failed=kind is not None)

    def finish(self, failed: bool = False) -> None:
        """End the stage: remove its line, or leave one where lines cannot be rewritten."""
        self._terminal.clear_status()
        elapsed_s = self._clock() - self._start_s
        if not failed and elapsed_s >= SILENT_S and not self._terminal.rewrites and self._terminal.progress:
            self._terminal.note(finished_text(self._label, self._done, self._unit, elapsed_s))
