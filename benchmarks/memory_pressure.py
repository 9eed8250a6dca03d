"""Memory that runs out while a model decodes: experts leave, nothing is killed, and the logits stay the same.

    python -m benchmarks.memory_pressure EXPERTS [--limit 5G] [--hog 1.5G] [--tokens 60] [--layers 5]

Everything runs in one memory control group (version 1 or 2, root needed). A slice with MiMo-V2.5's sizes decodes with
`--ram auto`, its random experts in EXPERTS (13.7 GB, kept). After a quarter of the tokens another program in the group
begins to take memory, 50 MB at a time; a third of the tokens later it ends. Then the same tokens without it. Prints
what was kept when, whether every token's logits were equal, and what the group counted.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.disk_rivals import memory_limit
from mimo_cli.units import parse_size

VOCABULARY = 8192
HOG = """
import sys, time
held = []
while sum(map(len, held)) < int(sys.argv[1]):
    held.append(bytearray(b"x" * 50_000_000))
    time.sleep(0.15)
time.sleep(600)
"""


def decode(arguments: argparse.Namespace) -> None:
    """Decode in the group; one JSON line for each token on standard output."""
    import torch

    from mimo_cli.checkpoint.config import ModelConfig
    from mimo_cli.checkpoint.release_shapes import release_config, slice_config
    from mimo_cli.engine.compute import choose_compute
    from mimo_cli.engine.disk_experts import disk_experts
    from mimo_cli.engine.load import choose_dtype
    from mimo_cli.engine.memory import rss_bytes
    from mimo_cli.engine.random_weights import RandomReader, RandomRecords
    from mimo_cli.engine.slice import DiskTier, ShapeSpec, build_slice
    from mimo_cli.media.prompt import Prompt
    from mimo_cli.offload.budget import AUTOMATIC
    from mimo_cli.offload.expert_store import ExpertStore
    from mimo_cli.offload.reading import Reading
    from mimo_cli.quant.random_streams import RandomStreams

    sliced = slice_config(release_config("v2.5"), arguments.layers)
    config = ModelConfig.from_dict({**sliced.raw, "vocab_size": VOCABULARY}, "slice")
    tier = DiskTier(AUTOMATIC, arguments.experts.parent, kept=arguments.experts, reading=Reading("direct"))
    spec = ShapeSpec(config, config, "mxfp4", prompt_tokens=(8,), decode_tokens=arguments.tokens, disk=tier)
    compute = choose_compute(choose_dtype("auto", config), "exact")
    streams = RandomStreams()
    reader, records = RandomReader(config, "int8", "uniform", streams), RandomRecords(config, "mxfp4", streams)
    with disk_experts(tier.parent, config, records, tier.kept) as stored:
        engine = build_slice(spec, reader, stored, compute)
        store = engine.experts
        assert isinstance(store, ExpertStore) and engine.memory is not None
        engine.memory.on_notice = lambda sentence: print(json.dumps({"notice": sentence}), flush=True)
        sequence = engine.start_sequence(arguments.tokens + 16)
        ids = torch.randint(VOCABULARY, (arguments.tokens + 8,), generator=torch.Generator().manual_seed(3)).tolist()
        logits = sequence.prefill(Prompt(tuple(ids[:8])))
        for number, token in enumerate(ids[8:]):
            began = time.perf_counter()
            logits = sequence.decode(token)
            line = {
                "token": number,
                "ms": round(1000 * (time.perf_counter() - began)),
                "slots": store.cache.limit,
                "in_memory": store.cache.slots_in_memory,
                "rss_gb": round(rss_bytes() / 1e9, 2),
                "logits": hashlib.sha256(logits.float().numpy().tobytes()).hexdigest()[:16],
            }
            print(json.dumps(line), flush=True)


def run(arguments: argparse.Namespace, hog_bytes: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Decode once in a group of its own; returns the lines and what the group counted."""
    lines: list[dict[str, Any]] = []
    with memory_limit(parse_size(arguments.limit)) as group:
        command = [sys.executable, "-m", "benchmarks.memory_pressure", *sys.argv[1:], "--own"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=group.enter) as process:
            hog: subprocess.Popen[bytes] | None = None
            assert process.stdout
            for text in process.stdout:
                lines.append(json.loads(text))
                at = lines[-1].get("token", -1)
                if at == arguments.tokens // 4 and hog_bytes:
                    hog = subprocess.Popen([sys.executable, "-c", HOG, str(hog_bytes)], preexec_fn=group.enter)
                if at == arguments.tokens // 4 + arguments.tokens // 3 and hog:
                    lines[-1]["other_program_lived"] = hog.poll() is None
                    hog.kill()
                    hog.wait()
        peak_gb = round(group.peak_bytes() / 1e9, 2)
        counted = {"peak_gb": peak_gb, "exit": process.returncode, "killed": _killed(group.folder)}
    return lines, counted


def _killed(folder: Path) -> int | None:
    """Return how many processes of the group were killed for want of memory, as the system counts."""
    for name in ("memory.oom_control", "memory.events"):
        if (folder / name).is_file():
            fields = dict(line.split() for line in (folder / name).read_text().splitlines())
            return int(fields["oom_kill"])
    return None


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experts", type=Path)
    parser.add_argument("--limit", default="5G")
    parser.add_argument("--hog", default="1.5G")
    parser.add_argument("--tokens", type=int, default=60)
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--own", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if arguments.own:
        decode(arguments)
        return
    pressed, counted = run(arguments, parse_size(arguments.hog))
    plain, alone = run(arguments, 0)
    for line in pressed:
        print(json.dumps(line))
    one, other = ([line["logits"] for line in lines if "logits" in line] for lines in (pressed, plain))
    slots = [line["slots"] for line in pressed if "slots" in line]
    equal = sum(a == b for a, b in zip(one, other, strict=True))
    print(json.dumps({"with": counted, "without": alone}))
    print(json.dumps({"equal": equal, "tokens": len(one), "slots": [slots[0], min(slots), slots[-1]]}))


if __name__ == "__main__":
    main()
