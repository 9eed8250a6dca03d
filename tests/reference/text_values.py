"""The expected values of a text checkpoint: what `expected.npz` and `dequant_checks.json` of a set hold, by `text.py`.

`seq{i}_` are independent sequences of tokens from position 0. Arrays of a sequence with T tokens:

| key | meaning |
|---|---|
| `input_ids` [T] | tokens |
| `logits` [R, vocabulary], `logit_rows` [R] | logits at those positions |
| `rows` [r] | positions used by `hidden_rows`, `final_norm_rows` and `logits_w128_rows` |
| `hidden_rows` [layers, r, H], `final_norm_rows` [r, H] | residual stream behind each layer; behind the last norm |
| `router_idx`, `router_weight` [MoE layers, T, A] | chosen experts, ascending, and their weights |
| `logits_w128_rows` [r, vocabulary] | logits if a sliding layer saw 128 tokens, its own among them, instead of 129 |
| `layer{0,1}_{q,k,v,attn}` (first sequence) | first 8 positions of a global and a sliding layer; see `text.Trace` |
| `next_token`, `draft_tokens` [3] | the likeliest next token, and what MTP module 0, 1, 2 drafts greedily |
| `mtp_logits_rows` [3, q, vocabulary], `mtp_rows` [q] | MTP logits at those positions |
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.reference.text import Float, Ids, TextNetwork, Trace
from tests.reference.text_weights import Heads, TextWeights

Arrays = dict[str, NDArray[Any]]
INSIDE_POSITIONS = 8


def drafts(network: TextNetwork, ids: Ids, states: Float) -> tuple[list[int], list[Float]]:
    """Draft greedily behind a sequence; returns [next token, drafts...] and each module's logits [T, vocabulary]."""
    tokens = [int(network.logits(states[-1]).argmax())]
    logits = []
    for module in range(network.weights.num_mtp):
        inputs = [*ids.tolist(), *tokens][1 + module :]
        logits.append(network.logits(network.draft_states(module, inputs, states)))
        tokens.append(int(logits[-1][-1].argmax()))
    return tokens, logits


def sequence_values(
    network: TextNetwork,
    ids: Ids,
    *,
    rows: Sequence[int],
    logit_rows: Sequence[int],
    mtp_rows: Sequence[int] = (),
    narrow: TextNetwork | None = None,
    inside: bool = False,
) -> tuple[Arrays, Trace]:
    """Compute the arrays of one sequence under their keys without `seq{i}_`.

    `narrow` is the same network with a window smaller by one; `inside` asks for the attention of the first two layers.
    """
    trace = Trace()
    states = network.states(ids, trace)
    values: Arrays = {
        "input_ids": np.asarray(ids, np.int64),
        "logit_rows": np.asarray(logit_rows, np.int64),
        "logits": network.logits(states[list(logit_rows)]),
        "rows": np.asarray(rows, np.int64),
        "hidden_rows": np.stack(trace.hidden)[:, list(rows)],
        "final_norm_rows": states[list(rows)],
        "router_idx": np.stack([ids for ids, _ in trace.router]).astype(np.int16),
        "router_weight": np.stack([weights for _, weights in trace.router]),
    }
    if narrow is not None:
        values["logits_w128_rows"] = network.logits(narrow.states(ids)[list(rows)])
    if inside:
        for layer in (0, 1):
            for name, array in trace.attention[layer].items():
                values[f"layer{layer}_{name}"] = array[:INSIDE_POSITIONS]
    if network.weights.num_mtp:
        tokens, logits = drafts(network, ids, states)
        values["mtp_rows"] = np.asarray(mtp_rows, np.int64)
        values["mtp_logits_rows"] = np.stack(logits)[:, list(mtp_rows)]
        values["next_token"], values["draft_tokens"] = np.int64(tokens[0]), np.asarray(tokens[1:], np.int64)
    return {key: _narrowed(array) for key, array in values.items()}, trace


def _narrowed(array: NDArray[Any]) -> NDArray[Any]:
    return array.astype(np.float32) if array.dtype == np.float64 else array


def dequant_checks(weights: TextWeights) -> dict[str, dict[str, Any]]:
    """Describe every dequantised matrix: shape, sum, sum of sizes, its first four numbers and its last four.

    `....self_attn.q`, `.k` and `.v` are the parts of a fused projection, whose own rows are in the order of its chunks.
    """
    checks = {}
    suffixes = (".weight_scale_inv", ".weight_scale")
    for name in sorted(name for name in weights.stored if name.endswith(suffixes)):
        matrix = name.rsplit(".", 1)[0]
        if not matrix.endswith(".qkv_proj"):
            checks[matrix] = _check(weights.matrix(matrix))
            continue
        attention = matrix.removesuffix(".qkv_proj")
        for letter, part in zip("qkv", weights.qkv(attention, heads_of(weights, attention)), strict=True):
            checks[f"{attention}.{letter}"] = _check(part)
    return checks


def heads_of(weights: TextWeights, attention: str) -> Heads:
    """The heads of `model.layers.3.self_attn` or `model.mtp.layers.0.self_attn`; an MTP module slides."""
    words = attention.split(".")
    sliding = words[1] == "mtp" or weights.config["hybrid_layer_pattern"][int(words[2])] == 1
    return Heads.of(weights.config, sliding=sliding)


def _check(matrix: NDArray[np.float32]) -> dict[str, Any]:
    wide = matrix.astype(np.float64)
    return {
        "shape": list(matrix.shape),
        "sum": float(wide.sum()),
        "abs_sum": float(np.abs(wide).sum()),
        "first": matrix[0, :4].tolist(),
        "last": matrix[-1, -4:].tolist(),
    }
