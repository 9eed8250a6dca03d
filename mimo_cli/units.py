"""Numbers with units as text, and sizes, durations and counts as people type them.

GB means 1e9 bytes everywhere in this project; `24G` on a command line is 24e9 bytes.
"""

import re

from mimo_cli.errors import UsageError

_SIZE_FACTORS = {"": 1, "B": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def format_bytes(size_bytes: float) -> str:
    """Render bytes with three significant digits: `315 GB`, `12.8 MB`, `640 B`."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(size_bytes) >= factor:
            value = size_bytes / factor
            return f"{value:.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"
    return f"{size_bytes:.0f} B"


def format_duration(seconds: float) -> str:
    """Render seconds: `850 ms`, `3.2 s`, `4 min 05 s`, `2 h 03 min`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def format_count(count: int) -> str:
    """Render a count with thousands separators: `1,204`."""
    return f"{count:,}"


def parse_size(text: str) -> int:
    """Read `24G`, `512M`, `1.5GB` or plain bytes; returns bytes. Raises UsageError naming the text."""
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([KMGT]?)B?\s*", text, re.IGNORECASE)
    if not match:
        raise UsageError(f"size `{text}` is not a number with K, M, G or T", hint="write for example 16G or 512M")
    return int(float(match[1]) * _SIZE_FACTORS[match[2].upper()])


def parse_count(text: str) -> int:
    """Read `4096`, `32k` (32 x 1024, the field's custom for contexts) or `1m`; returns an int.

    Raises UsageError naming the text.
    """
    match = re.fullmatch(r"\s*([0-9]+)\s*([km]?)\s*", text, re.IGNORECASE)
    if not match:
        raise UsageError(f"count `{text}` is not a whole number, optionally with k or m", hint="write for example 32k")
    return int(match[1]) * {"": 1, "k": 1024, "m": 1024 * 1024}[match[2].lower()]


def parse_duration(text: str) -> float:
    """Read `30s`, `5m`, `1h30m`, `250ms`, `00:01:30`, `1:30.5` or plain seconds; returns seconds.

    Raises UsageError naming the text.
    """
    clock = re.fullmatch(r"\s*(?:([0-9]+):)?([0-9]+):([0-9]+(?:\.[0-9]+)?)\s*", text)
    if clock:
        return int(clock[1] or 0) * 3600 + int(clock[2]) * 60 + float(clock[3])
    if re.fullmatch(r"\s*[0-9]*\.?[0-9]+\s*", text):
        return float(text)
    parts = re.findall(r"([0-9]*\.?[0-9]+)\s*(ms|s|m|h)", text, re.IGNORECASE)
    if not parts or re.sub(r"[0-9]*\.?[0-9]+\s*(ms|s|m|h)|\s", "", text, flags=re.IGNORECASE):
        raise UsageError(f"time `{text}` is not a duration", hint="write for example 30s, 5m or 00:01:30")
    factors = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
    return sum(float(number) * factors[unit.lower()] for number, unit in parts)
