"""`mimo bench --replay`: a trace and numbers of slots to a table or JSON. Replayed by engine/trace_replay.py."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimo_cli.errors import UsageError
from mimo_cli.terminal.console import Terminal
from mimo_cli.units import format_count, parse_count

if TYPE_CHECKING:
    from mimo_cli.engine.routing_trace import RoutingTrace
    from mimo_cli.engine.trace_replay import Hits

DEFAULT_SLOTS = "12.5%,25%"

_COLUMNS = ("slots", "of all", "LRU", "ours", "optimum", "gap closed")


def write_replay(terminal: Terminal, path: Path, slots: str, as_json: bool) -> None:
    """Replay a trace and write what caches of some sizes would have found. Raises UsageError."""
    from mimo_cli.engine.routing_trace import read_trace

    report = replay_json(read_trace(path), slots)
    if as_json:
        terminal.write(json.dumps(report, ensure_ascii=False) + "\n")
    else:
        _write_table(terminal, report)


def replay_json(trace: "RoutingTrace", slots: str) -> dict[str, Any]:
    """Return hit rates, each a share from 0 to 1, of decoded tokens and of everything."""
    from mimo_cli.engine.trace_replay import replay

    experts = len(trace.layers) * trace.experts
    rows = [replay(trace, count) for count in parse_slots(slots, experts, trace.active)]
    return {
        "schema": 1,
        "trace": {
            "model": trace.model,
            "layers": len(trace.layers),
            "experts": trace.experts,
            "active": trace.active,
            "passes": len(trace.passes),
            "decoded_tokens": len(trace.decoded),
        },
        "rows": [
            {
                "slots": row.slots,
                "slots_share": row.slots_share,
                **{name: _rates(getattr(row, name)) for name in ("lru", "ours", "optimum")},
                "gap_closed": row.gap_closed,
            }
            for row in rows
        ],
    }


def parse_slots(text: str, experts: int, least: int) -> list[int]:
    """Read `1504,25%`: numbers of slots, or shares of all experts. Raises UsageError for none, or too few to decode."""
    found = []
    for item in text.split(","):
        item = item.strip()
        try:
            count = round(float(item[:-1]) / 100 * experts) if item.endswith("%") else parse_count(item)
        except ValueError:
            raise UsageError(f"slots `{item}` are neither a number nor a share", hint="write 1504 or 12.5%") from None
        if count < least:
            raise UsageError(f"{count} slots are too few: one token needs {least} of a layer at once")
        found.append(min(count, experts))
    return found


def _rates(hits: "Hits") -> dict[str, Any]:
    return {"decode_rate": hits.decode_rate, "rate": hits.rate, **asdict(hits)}


def _write_table(terminal: Terminal, report: dict[str, Any]) -> None:
    from mimo_cli.terminal.tables import write_table

    trace = report["trace"]
    terminal.write(
        f"{trace['model']}: {trace['decoded_tokens']} decoded tokens, {trace['layers']} layers of {trace['experts']} "
        f"experts, {trace['active']} for a token\n\n"
    )
    rows = [
        [
            format_count(row["slots"]),
            f"{row['slots_share']:.1%}",
            *(f"{row[name]['decode_rate']:.1%}" for name in ("lru", "ours", "optimum")),
            "-" if row["gap_closed"] is None else f"{row['gap_closed']:.0%}",
        ]
        for row in report["rows"]
    ]
    write_table(terminal, _COLUMNS, rows, numbers=range(len(_COLUMNS)))
    terminal.write("\nshare of a decoded token's experts found in memory; gap: from LRU to the optimum\n")
