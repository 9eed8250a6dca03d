"""How fast `mimo quantize` reads: random FP8 experts of MiMo-V2.5's shape -> a packed store, GB of source per second.

    python -m benchmarks.quantize_speed [--experts 40] [--format int4] [--group 32] [--jobs 1] [--folder DIR] [--verify]

The source is written first and is warm; the store is hashed and flushed to the disk as always. --verify then times what
`mimo quantize --verify` does: reading all hashes, and comparing every tensor. Prints one JSON line.
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import torch

from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.checkpoint.names import FP8_SCALE, expert_weights, text_weights
from mimo_cli.checkpoint.shard_writer import PlannedTensor, ShardWriter, write_json
from mimo_cli.store.convert import convert, default_jobs
from mimo_cli.store.manifest import StoreManifest
from mimo_cli.store.plan import QuantizeOptions, StorePlan, plan_store
from mimo_cli.store.verify import compare_tensors, verify_hashes

HIDDEN, WIDTH = 4096, 2048


def config_values(experts: int) -> dict[str, object]:
    """Return the configuration of one MoE layer with a tiny vocabulary and attention."""
    return {
        "model_type": "mimo_v2",
        "vocab_size": 256,
        "hidden_size": HIDDEN,
        "intermediate_size": 256,
        "moe_intermediate_size": WIDTH,
        "num_hidden_layers": 1,
        "hybrid_layer_pattern": [0],
        "moe_layer_freq": [1],
        "n_routed_experts": experts,
        "num_experts_per_tok": min(8, experts),
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 64,
        "v_head_dim": 64,
        "max_position_embeddings": 1024,
        "attention_projection_layout": "fused_qkv",
        "quantization_config": {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]},
    }


def write_source(folder: Path, experts: int) -> None:
    """Write a checkpoint of random experts; every other tensor is random too, and small."""
    values = config_values(experts)
    config = ModelConfig.from_dict(values)
    planned = [PlannedTensor(weight.name, torch.float32, weight.shape) for weight in text_weights(config)]
    for weight in expert_weights(config):
        rows, cols = weight.shape
        planned += [
            PlannedTensor(weight.name, torch.float8_e4m3fn, weight.shape),
            PlannedTensor(weight.name + FP8_SCALE, torch.float32, (rows // 128, cols // 128)),
        ]
    normal = (torch.randn(HIDDEN * WIDTH) * 60).clamp(-448, 448).to(torch.float8_e4m3fn)  # reused: only speed matters
    with ShardWriter(folder / "model.safetensors", planned) as writer:
        for tensor in planned:
            plain = torch.rand(tensor.shape) * 1e-3 if tensor.dtype == torch.float32 else normal.view(tensor.shape)
            writer.write(tensor.name, plain)
        writer.commit()
    write_json(folder / "config.json", values)


def verify(plan: StorePlan, store: Path, manifest: StoreManifest) -> dict[str, float]:
    """Return the rates of both parts of a verification, in GB of what they read."""
    started_s = time.perf_counter()
    verify_hashes(store, manifest)
    hashed_s = time.perf_counter()
    tensors = sum(1 for _ in compare_tensors(plan, store, manifest))
    compared_s = time.perf_counter() - hashed_s
    return {
        "hash_gbps": round(plan.total_bytes / (hashed_s - started_s) / 1e9, 3),
        "compare_source_gbps": round(plan.contents.size_bytes / compared_s / 1e9, 3),
        "tensors": tensors,
    }


def main() -> None:
    """Measure once and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--experts", type=int, default=40)
    parser.add_argument("--format", default="int4")
    parser.add_argument("--group", type=int, default=32)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--folder", default=None)
    parser.add_argument("--verify", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        source = Path(folder) / "source"
        source.mkdir()
        write_source(source, arguments.experts)
        plan = plan_store(source, QuantizeOptions(arguments.format, arguments.group))
        started_s, started_cpu_s = time.perf_counter(), time.process_time()
        report = convert(plan, Path(folder) / "store", jobs=arguments.jobs)
        wall_s, cpu_s = time.perf_counter() - started_s, time.process_time() - started_cpu_s
        verified = verify(plan, Path(folder) / "store", report.manifest) if arguments.verify else {}
    read_bytes = plan.contents.size_bytes
    result = {
        "format": plan.precision["experts"],
        "source_bytes": read_bytes,
        "store_bytes": plan.total_bytes,
        "jobs": arguments.jobs or default_jobs(),
        "wall_s": round(wall_s, 2),
        "source_gbps": round(read_bytes / wall_s / 1e9, 3),
        "source_gbps_per_cpu_second": round(read_bytes / cpu_s / 1e9, 3),
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "lossy": [str(loss) for loss in report.manifest.lossy],
        **verified,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
