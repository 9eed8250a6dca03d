"""Hit rates of traces under LRU, the program's own policy and the optimum.

python -m benchmarks.replay                                  synthetic traces, 12.5 % and 25 % of all experts
python -m benchmarks.replay talk.jsonl --shares 6,12.5,25    recorded ones (mimo chat --record-routing talk.jsonl)
"""

import argparse
from pathlib import Path

from benchmarks.synthetic_traces import KINDS, synthetic_trace
from mimo_cli.engine.routing_trace import RoutingTrace, read_trace
from mimo_cli.engine.trace_replay import replay


def main() -> None:
    """Print one line for each trace and number of slots, as a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("traces", nargs="*", type=Path, help="recorded traces; without any, synthetic ones")
    parser.add_argument("--shares", default="12.5,25", help="slots, in percent of all experts")
    parser.add_argument("--tokens", type=int, default=600, help="of each synthetic trace")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--warm", type=int, default=50, help="passes before the counting begins")
    arguments = parser.parse_args()
    traces: list[RoutingTrace] = [read_trace(path) for path in arguments.traces]
    traces = traces or [synthetic_trace(name, arguments.tokens, arguments.layers) for name in KINDS]
    print("| trace | tokens | slots | LRU | ours | optimum | gap closed |")
    print("|---|---|---|---|---|---|---|")
    for trace in traces:
        for share in (float(part) / 100 for part in arguments.shares.split(",")):
            slots = max(trace.active, round(share * len(trace.layers) * trace.experts))
            row = replay(trace, slots, arguments.warm)
            gap = "-" if row.gap_closed is None else f"{row.gap_closed:.0%}"
            rates = " | ".join(f"{hits.decode_rate:.1%}" for hits in (row.lru, row.ours, row.optimum))
            print(f"| {trace.model} | {len(trace.decoded)} | {share:.1%} ({slots}) | {rates} | {gap} |", flush=True)


if __name__ == "__main__":
    main()
