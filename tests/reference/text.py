"""The text network in numpy: one function per formula, float64 throughout, whole sequences, no cache.

Letters: T tokens, H hidden size, N query heads, K key-value heads, D width of a query or key, V width of a value,
E experts, A experts a token uses. Matrices are [out, in]; no projection has a bias.

    x = embed(ids)
    per layer:  x = x + attention(norm(x));  x = x + feed_forward(norm(x))
    states = norm(x);  logits = states @ lm_head.T

A layer is global (0) or sliding (1) by `hybrid_layer_pattern`, dense (0) or of experts (1) by `moe_layer_freq`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.reference.text_weights import Heads, TextWeights

Float = NDArray[np.float64]
Ids = NDArray[np.int64]


@dataclass
class Trace:
    """What the layers leave for whoever wants to look inside."""

    hidden: list[Float] = field(default_factory=list)
    """The residual stream [T, H] behind each layer."""
    router: list[tuple[Ids, Float]] = field(default_factory=list)
    """Chosen experts [T, A], ascending, and their weights, of each layer with experts."""
    margins: list[Float] = field(default_factory=list)
    """Distance [T] in the selection scores between the last chosen expert and the first refused one."""
    attention: list[dict[str, Float]] = field(default_factory=list)
    """Of each layer q [T, N, D], k [T, K, D] after the rotation, v [T, K, V] scaled, attn [T, N, V]."""


def rms_norm(x: Float, weight: Float, eps: float) -> Float:
    """Divide rows by their root mean square; the weight is used as stored, without an added one."""
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def silu(x: Float) -> Float:
    """Return x times its sigmoid."""
    return x * sigmoid(x)


def sigmoid(x: Float) -> Float:
    """Return 1 / (1 + e^-x)."""
    return 1 / (1 + np.exp(-x))


def swiglu(x: Float, gate: Float, up: Float, down: Float) -> Float:
    """Return the gated feed-forward of rows [T, H]."""
    return (silu(x @ gate.T) * (x @ up.T)) @ down.T


def rotate(x: Float, positions: Ids, theta: float, rotary: int) -> Float:
    """Turn the first `rotary` numbers of every head [T, heads, D] by the token's position; the others pass unchanged.

    Number j is paired with j + rotary / 2, and their angle is position * theta^(-2 j / rotary). Angles, cosines and
    sines are float32, as the model was trained with.
    """
    half = rotary // 2
    frequencies = (1 / theta ** (np.arange(half, dtype=np.float32) * 2 / rotary)).astype(np.float32)
    angles = (positions[:, None].astype(np.float32) * frequencies)[:, None]
    cos, sin = np.cos(angles).astype(np.float64), np.sin(angles).astype(np.float64)
    a, b, rest = np.split(x, [half, rotary], axis=-1)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin, rest], axis=-1)


def attend(q: Float, k: Float, v: Float, *, window: int | None, sinks: Float | None) -> Float:
    """Return [T, N, V]: causal attention of q [T, N, D] over k [T, K, D] and v [T, K, V] of T tokens from position 0.

    Query head n reads key-value head n // (N / K). With a window, a token sees itself and the `window` ones before it.
    A sink is one more logit of its head, not scaled, never masked, without a value: it takes part of the sum only.
    """
    tokens, heads, width = q.shape
    distance = np.arange(tokens)[:, None] - np.arange(tokens)
    hidden = (distance < 0) if window is None else (distance < 0) | (distance > window)
    out = np.empty((tokens, heads, v.shape[-1]))
    for head in range(heads):
        shared = head // (heads // k.shape[1])
        scores = q[:, head] @ k[:, shared].T / np.sqrt(width)
        scores[hidden] = -np.inf
        largest = scores.max(-1, keepdims=True)
        if sinks is not None:
            largest = np.maximum(largest, sinks[head])
        weights = np.exp(scores - largest)
        total = weights.sum(-1, keepdims=True)
        if sinks is not None:
            total += np.exp(sinks[head] - largest)
        out[:, head] = weights @ v[:, shared] / total
    return out


def route(logits: Float, bias: Float, config: Mapping[str, Any]) -> tuple[Ids, Float, Float]:
    """Choose experts from router logits [T, E]; returns ids [T, A] ascending, weights [T, A] and the margin [T].

    The correction bias decides who is chosen and is not part of the weights. Of several groups of experts the best
    `topk_group` take part, judged by the sum of their two largest scores. A tie goes to the lower id.
    """
    active, groups, kept = config["num_experts_per_tok"], config["n_group"], config["topk_group"]
    scores = sigmoid(logits)
    choice = scores + bias
    if groups > 1:
        grouped = choice.reshape(len(choice), groups, -1)
        strength = np.sort(grouped, -1)[..., -2:].sum(-1)
        best = np.argsort(-strength, axis=-1, kind="stable")[:, :kept]
        allowed = np.zeros_like(strength, bool)
        np.put_along_axis(allowed, best, True, axis=-1)
        choice = np.where(allowed[..., None], grouped, -np.inf).reshape(choice.shape)
    order = np.argsort(-choice, axis=-1, kind="stable")
    ranked = np.take_along_axis(choice, order, -1)
    ids = np.sort(order[:, :active], -1)
    weights = np.take_along_axis(scores, ids, -1)
    if config["norm_topk_prob"]:
        weights = weights / (weights.sum(-1, keepdims=True) + 1e-20)
    scaling = config.get("routed_scaling_factor")
    return ids, weights * (1.0 if scaling is None else scaling), ranked[:, active - 1] - ranked[:, active]


def mix(x: Float, ids: Ids, weights: Float, expert: Callable[[int], tuple[Float, Float, Float]]) -> Float:
    """Return the weighted sum of each row's experts; the weight follows the expert's last matrix."""
    out = np.zeros_like(x)
    for number in np.unique(ids):
        rows, places = np.nonzero(ids == number)
        out[rows] += weights[rows, places, None] * swiglu(x[rows], *expert(int(number)))
    return out


class TextNetwork:
    """The network of a checkpoint folder, with float64 copies of the matrices it has used."""

    def __init__(self, weights: TextWeights, window: int | None = None) -> None:
        """Keep the weights; `window` replaces the configured number of tokens a sliding layer sees before its own."""
        self.weights, self.config = weights, weights.config
        self.window = self.config["sliding_window_size"] if window is None else window
        self.eps = self.config["layernorm_epsilon"]
        self._wide: dict[str, Any] = {}

    def with_window(self, window: int) -> "TextNetwork":
        """Return the network with another window; both share their matrices."""
        network = TextNetwork(self.weights, window)
        network._wide = self._wide
        return network

    def embed(self, ids: Ids) -> Float:
        """Look up tokens."""
        return self._matrix("model.embed_tokens")[ids]

    def logits(self, states: Float) -> Float:
        """Return [.., vocabulary]: the head is a matrix of its own."""
        return states @ self._matrix("lm_head").T

    def states(self, ids: Sequence[int] | Ids, trace: Trace | None = None, layers: int | None = None) -> Float:
        """Run tokens from position 0 through all (or the first) layers and the last norm; returns [T, H]."""
        trace = Trace() if trace is None else trace
        x = self.embed(np.asarray(ids))
        for layer in range(self.config["num_hidden_layers"] if layers is None else layers):
            prefix = f"model.layers.{layer}"
            sliding = self.config["hybrid_layer_pattern"][layer] == 1
            x = x + self._attention(self._norm(x, f"{prefix}.input_layernorm"), prefix, sliding, trace)
            normed = self._norm(x, f"{prefix}.post_attention_layernorm")
            if self.config["moe_layer_freq"][layer]:
                x = x + self._experts(normed, prefix, trace)
            else:
                x = x + swiglu(normed, *self._feed_forward(f"{prefix}.mlp"))
            trace.hidden.append(x)
        return self._norm(x, "model.norm")

    def draft_states(self, module: int, tokens: Sequence[int] | Ids, states: Float) -> Float:
        """Run MTP module k: row p gets token p + 1 + k and the main model's state p, behind its last norm.

        Returns the rows [T, H] for `logits`; row p predicts token p + 2 + k. A module is one sliding dense layer.
        """
        prefix = f"model.mtp.layers.{module}"
        both = [self._norm(self.embed(np.asarray(tokens)), f"{prefix}.enorm"), self._norm(states, f"{prefix}.hnorm")]
        x = np.concatenate(both, -1) @ self._matrix(f"{prefix}.eh_proj").T
        x = x + self._attention(self._norm(x, f"{prefix}.input_layernorm"), prefix, True, Trace())
        x = x + swiglu(self._norm(x, f"{prefix}.pre_mlp_layernorm"), *self._feed_forward(f"{prefix}.mlp"))
        return self._norm(x, f"{prefix}.final_layernorm")

    def _attention(self, x: Float, prefix: str, sliding: bool, trace: Trace) -> Float:
        heads, prefix = Heads.of(self.config, sliding=sliding), f"{prefix}.self_attn"
        wq, wk, wv = self._kept(f"{prefix}.qkv", lambda: [_wide(m) for m in self.weights.qkv(prefix, heads)])
        rotary = int(heads.head_dim * self.config["partial_rotary_factor"]) // 2 * 2
        positions = np.arange(len(x))
        q = rotate((x @ wq.T).reshape(len(x), -1, heads.head_dim), positions, heads.rope_theta, rotary)
        k = rotate((x @ wk.T).reshape(len(x), -1, heads.head_dim), positions, heads.rope_theta, rotary)
        scale = self.config.get("attention_value_scale")
        v = (x @ wv.T).reshape(len(x), -1, heads.v_head_dim) * (1.0 if scale is None else scale)
        has_sink = self.config["add_swa_attention_sink_bias" if sliding else "add_full_attention_sink_bias"]
        sinks = _wide(self.weights.vector(f"{prefix}.attention_sink_bias")) if has_sink else None
        out = attend(q, k, v, window=self.window if sliding else None, sinks=sinks)
        trace.attention.append({"q": q, "k": k, "v": v, "attn": out})
        return out.reshape(len(x), -1) @ self._matrix(f"{prefix}.o_proj").T

    def _experts(self, x: Float, prefix: str, trace: Trace) -> Float:
        bias = _wide(self.weights.vector(f"{prefix}.mlp.gate.e_score_correction_bias"))
        ids, weights, margin = route(x @ self._matrix(f"{prefix}.mlp.gate").T, bias, self.config)
        trace.router.append((ids, weights))
        trace.margins.append(margin)
        return mix(x, ids, weights, lambda number: self._feed_forward(f"{prefix}.mlp.experts.{number}"))

    def _feed_forward(self, prefix: str) -> tuple[Float, Float, Float]:
        gate, up, down = (self._matrix(f"{prefix}.{part}_proj") for part in ("gate", "up", "down"))
        return gate, up, down

    def _norm(self, x: Float, name: str) -> Float:
        return rms_norm(x, _wide(self.weights.vector(f"{name}.weight")), self.eps)

    def _matrix(self, name: str) -> Float:
        return self._kept(name, lambda: _wide(self.weights.matrix(name)))

    def _kept(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self._wide:
            self._wide[name] = make()
        return self._wide[name]


def _wide(values: NDArray[np.float32]) -> Float:
    return values.astype(np.float64)
