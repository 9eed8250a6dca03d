"""A tiny text checkpoint of random weights, stored as the release stores its tensors, and the values it must give.

What is deliberately active in it:

* two chunks of fused rows: a global layer's chunk has 1088 rows = 8.5 blocks, so its scales have 2 x 9 rows although
  ceil(2176 / 128) = 17; a sliding layer's chunk has 1408 rows = 11 whole blocks;
* magnitudes of blocks up to eight times apart, so that a scale applied to other rows is seen;
* sinks, correction biases and all norms away from their neutral values;
* four ranks of experts in two shards each, everything else in the second shard of rank 0, MTP in a file of its own;
* sequences of 17, 131 and 400 tokens: the window of 129 tokens first leaves one out at position 129. Their tokens were
  drawn at random, and drawn again, from left to right, where routing was near a tie.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.reference.random_values import RandomValues
from tests.reference.storage import Array, Stored, store, write_file
from tests.reference.text import TextNetwork
from tests.reference.text_values import Arrays, dequant_checks, sequence_values
from tests.reference.text_weights import BLOCK, Heads, TextWeights

SEED = 1
RANKS = 4
FIRST_SHARD_LAYERS = 5
"""Experts of the layers before this one are in shard 0, the others in shard 1."""
NUM_MTP = 3
MAX_E4M3 = 448.0
CHECKED_EXPERTS = {"1.mlp.experts.0", "1.mlp.experts.15", "6.mlp.experts.7"}
"""Experts whose dequantised matrices are described; of the other matrices all are."""


def store_fp8(matrix: Array, random: RandomValues, chunks: int = 1) -> tuple[Stored, Stored]:
    """Quantise a matrix in blocks, `chunks` grids of rows one below the other, after spreading their magnitudes.

    Neighbouring blocks are multiplied by factors of other octaves: 1 to 2, 1/2 to 1, 1/4 to 1/2, in turns.
    """
    codes, scales = [], []
    for part in np.split(matrix, chunks):
        rows, columns = (np.arange(size) // BLOCK for size in part.shape)
        grid = (int(rows[-1]) + 1, int(columns[-1]) + 1)
        octaves = -(np.add.outer(*map(np.arange, grid)) % 3)
        part = part * np.ldexp(random.from_one_to_two(grid), octaves)[rows][:, columns]
        largest = np.zeros(grid, np.float32)
        np.maximum.at(largest, (rows[:, None], columns[None]), np.abs(part))
        scale = (largest / np.float32(MAX_E4M3)).astype(np.float32)
        codes.append(np.clip(part / scale[rows][:, columns], -MAX_E4M3, MAX_E4M3))
        scales.append(scale)
    return store(np.concatenate(codes), "F8_E4M3"), store(np.concatenate(scales), "F32")


class RandomText:
    """The tensors of a checkpoint of this configuration, name by name."""

    def __init__(self, config: dict[str, Any], seed: int) -> None:
        self.config, self.random = config, RandomValues(seed)
        self.hidden = config["hidden_size"]

    def tensors(self) -> Iterator[tuple[str, Stored]]:
        """Yield every tensor; deviations keep the stream of the network near one and its logits near two."""
        vocabulary = (self.config["vocab_size"], self.hidden)
        yield "model.embed_tokens.weight", self._plain(vocabulary, 0.05)
        yield "lm_head.weight", self._plain(vocabulary, 0.13)
        yield from self._norms("model", "norm")
        for layer, sliding in enumerate(self.config["hybrid_layer_pattern"]):
            prefix = f"model.layers.{layer}"
            yield from self._norms(prefix, "input_layernorm", "post_attention_layernorm")
            yield from self._attention(f"{prefix}.self_attn", sliding=sliding == 1)
            if self.config["moe_layer_freq"][layer]:
                yield from self._experts(f"{prefix}.mlp")
            else:
                yield from self._feed_forward(f"{prefix}.mlp", self.config["intermediate_size"], 0.075, 0.07)
        for module in range(NUM_MTP):
            prefix = f"model.mtp.layers.{module}"
            norms = ("enorm", "hnorm", "input_layernorm", "pre_mlp_layernorm", "final_layernorm")
            yield from self._norms(prefix, *norms)
            yield f"{prefix}.eh_proj.weight", self._plain((self.hidden, 2 * self.hidden), 0.0625)
            yield from self._attention(f"{prefix}.self_attn", sliding=True)
            yield from self._feed_forward(f"{prefix}.mlp", self.config["intermediate_size"], 0.09, 0.05)

    def _attention(self, prefix: str, *, sliding: bool) -> Iterator[tuple[str, Stored]]:
        heads = Heads.of(self.config, sliding=sliding)
        fused = self.random.near_normal((sum(heads.rows), self.hidden), 0.095)
        chunks = self.config["num_key_value_heads"]
        yield from self._fp8(f"{prefix}.qkv_proj", fused, chunks)
        yield f"{prefix}.o_proj.weight", self._plain((self.hidden, heads.num_heads * heads.v_head_dim), 0.028)
        if sliding:
            yield f"{prefix}.attention_sink_bias", self._plain((heads.num_heads,), 1.4, 0.5)

    def _experts(self, prefix: str) -> Iterator[tuple[str, Stored]]:
        experts, width = self.config["n_routed_experts"], self.config["moe_intermediate_size"]
        gate = self.random.near_normal((experts, self.hidden), 0.21)
        yield f"{prefix}.gate.weight", store(gate, "F32")
        yield f"{prefix}.gate.e_score_correction_bias", store(self.random.near_normal((experts,), 0.15), "F32")
        for expert in range(experts):
            yield from self._feed_forward(f"{prefix}.experts.{expert}", width, 0.075, 0.1)

    def _feed_forward(self, prefix: str, width: int, inner: float, outer: float) -> Iterator[tuple[str, Stored]]:
        for part in ("gate", "up"):
            yield from self._fp8(f"{prefix}.{part}_proj", self.random.near_normal((width, self.hidden), inner))
        yield from self._fp8(f"{prefix}.down_proj", self.random.near_normal((self.hidden, width), outer))

    def _fp8(self, name: str, matrix: Array, chunks: int = 1) -> Iterator[tuple[str, Stored]]:
        weight, scale = store_fp8(matrix, self.random, chunks)
        yield f"{name}.weight", weight
        yield f"{name}.weight_scale_inv", scale

    def _plain(self, shape: tuple[int, ...], deviation: float, middle: float = 0.0) -> Stored:
        return store(self.random.near_normal(shape, deviation, middle), "BF16")

    def _norms(self, prefix: str, *names: str) -> Iterator[tuple[str, Stored]]:
        for name in names:
            yield f"{prefix}.{name}.weight", self._plain((self.hidden,), 0.15, 1.0)


def file_of(name: str, num_experts: int) -> str:
    """The file that holds a tensor."""
    words = name.split(".")
    if words[1] == "mtp":
        return "model_mtp.safetensors"
    if "experts" not in words:
        return "model_pp0_ep0_shard1.safetensors"
    rank = int(words[5]) * RANKS // num_experts
    return f"model_pp0_ep{rank}_shard{int(int(words[2]) >= FIRST_SHARD_LAYERS)}.safetensors"


def write_checkpoint(folder: Path, config: dict[str, Any], seed: int = SEED) -> None:
    """Write the weight files and their index beside `config.json`, which must be there."""
    tensors = dict(RandomText(config, seed).tensors())
    weight_map = {name: file_of(name, config["n_routed_experts"]) for name in sorted(tensors)}
    for file in sorted(set(weight_map.values())):
        write_file(folder / file, {name: tensors[name] for name in weight_map if weight_map[name] == file})
    metadata = {
        "save_format": "fp8",
        "total_size": sum(len(tensor.data) for tensor in tensors.values()),
        "tp_size": config["num_key_value_heads"],
    }
    index = {"metadata": metadata, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))


def write_values(folder: Path) -> None:
    """Compute what a checkpoint must give for the sequences of `tokens.json`; write it beside them."""
    weights = TextWeights(folder)
    network = TextNetwork(weights)
    narrow = network.with_window(network.window - 1)
    values: Arrays = {}
    for number, ids in enumerate(json.loads((folder / "tokens.json").read_text())):
        sequence, _ = sequence_values(
            network,
            np.array(ids),
            **positions(number, len(ids)),
            narrow=narrow if number else None,
            inside=number == 0,
        )
        values |= {f"seq{number}_{key}": array for key, array in sequence.items()}
    np.savez(folder / "expected.npz", **values)  # type: ignore[arg-type]
    checks = {
        name: check
        for name, check in dequant_checks(weights).items()
        if ".experts." not in name or any(expert in name for expert in CHECKED_EXPERTS)
    }
    (folder / "dequant_checks.json").write_text(json.dumps(checks))


def positions(number: int, tokens: int) -> dict[str, list[int]]:
    """Positions of a sequence that are kept: all of the shortest; of the others those around the window's edge."""
    if number == 0:
        return {key: list(range(tokens)) for key in ("rows", "logit_rows", "mtp_rows")}
    edge = set(range(124, 134)) | set(range(tokens - 8, tokens))
    rows = sorted(p for p in edge | set(range(0, tokens, 16)) if p < tokens)
    logit_rows = list(range(tokens)) if number == 1 else sorted(edge | set(range(0, tokens, 3)))
    return {"rows": rows, "logit_rows": logit_rows, "mtp_rows": rows[-10:]}
