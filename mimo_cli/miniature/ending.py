"""Why the miniature's answers end: a hand-made bias in otherwise random weights.

A random network does not stop: sampled, it rambles on for ever; greedy, it runs in circles. So three of the hidden
dimensions are reserved. No random weight reads or writes them; these few weights, made by hand, do:

* CONSTANT is the same large number in every token's embedding. The head reads it to give the end of the turn a small
  chance at every step, and every token that is not printable text almost none.
* MARKER is set in the embedding of `<|im_start|>` alone: the start of a turn.
* CLOCK grows once the turn has become long. In the first layer, which sees everything, one attention head looks for
  MARKER wherever it is and adds one unit if there is any. In the second layer, which sees a window, one head looks for
  MARKER through a slowly turning rotary pair, so its view fades with distance, and takes the unit away again while the
  marker is near. What remains is "a turn began, some forty tokens ago"; the head reads it as a reason to end the turn.

Nothing else of the network knows about this: it computes these weights like any others.
"""

import math

from torch import Tensor

from mimo_cli.checkpoint.config import AttentionConfig
from mimo_cli.miniature.configuration import HIDDEN_SIZE
from mimo_cli.miniature.vocabulary import Vocabulary

CONSTANT, MARKER, CLOCK = 0, 1, 2
RESERVED = 3
"""Hidden dimensions below this one belong to the bias."""

UNIT = math.sqrt(HIDDEN_SIZE - RESERVED)
"""Size of a reserved entry: it carries as much power as all random entries of an embedding together."""

ANYWHERE_LAYER, NEARBY_LAYER = 0, 1
"""The layers that hold the two heads: a global one and a sliding one."""

_SCORE = 20.0  # of the marker at distance zero; other tokens score zero
_UNROTATED_ROW = 20  # past the rotary dims of a head
_SLOW_PAIR = 3  # turns by 10000^(-2*3/16) = 0.032 per token: the score crosses ln(visible keys) after about 40 tokens

# What the reserved entries are once a norm has divided by the growing size of the residual stream; measured.
_NORMED_CONSTANT = {ANYWHERE_LAYER: 8.0, NEARBY_LAYER: 5.9}  # of an ordinary token
_NORMED_MARKER = {ANYWHERE_LAYER: 6.4, NEARBY_LAYER: 5.4}  # of a marker
_VALUE_SCALE = 0.707  # `attention_value_scale`
_FINAL_ENTRY = 4.9  # of CONSTANT, and of CLOCK when it is up

_END_LOGIT, _LATE_END_LOGIT, _NEVER_LOGIT = 4.0, 9.5, -30.0
"""Logit of the end of the turn at first and once the clock runs, and of tokens that are no printable text."""


def reserve(weight: Tensor, *, inputs: bool = True, outputs: bool = False) -> Tensor:
    """Clear the reserved columns (`inputs`) or rows (`outputs`) of a random matrix [out, in], in place; returns it."""
    if inputs:
        weight[:, :RESERVED] = 0.0
    if outputs:
        weight[:RESERVED] = 0.0
    return weight


def mark_embedding(embedding: Tensor, vocabulary: Vocabulary) -> Tensor:
    """Set the reserved columns of the embedding table [rows, H], in place; returns it."""
    reserve(embedding)
    embedding[:, CONSTANT] = UNIT
    embedding[vocabulary.id("<|im_start|>"), MARKER] = UNIT
    return embedding


def add_clock_head(layer: int, projection: str, weight: Tensor, attention: AttentionConfig) -> None:
    """Turn the first head of one of the two layers into its part of the clock, in place; other layers stay as is.

    `weight` is that of `qkv_proj`, [q + k + v rows, H] in plain order, or of `o_proj`, [H, heads * v_head_dim].
    """
    if layer not in (ANYWHERE_LAYER, NEARBY_LAYER):
        return
    if projection == "o_proj":
        sign = 1.0 if layer == ANYWHERE_LAYER else -1.0
        weight[:, : attention.v_head_dim] = 0.0
        weight[CLOCK, 0] = sign * UNIT / (_VALUE_SCALE * _NORMED_MARKER[layer])
        return
    row = _UNROTATED_ROW if layer == ANYWHERE_LAYER else _SLOW_PAIR
    strength = math.sqrt(_SCORE * math.sqrt(attention.head_dim) / (_NORMED_CONSTANT[layer] * _NORMED_MARKER[layer]))
    weight[: attention.head_dim] = 0.0
    weight[row, CONSTANT] = strength
    key = weight[attention.q_rows : attention.q_rows + attention.head_dim]
    key[:] = 0.0
    key[row, MARKER] = strength
    value = weight[attention.q_rows + attention.k_rows]
    value[:] = 0.0
    value[MARKER] = 1.0


def bias_head(head: Tensor, vocabulary: Vocabulary) -> Tensor:
    """Set the reserved columns of the output head [rows, H], in place; returns it."""
    reserve(head)
    printable = set(vocabulary.printable_ids())
    for token in range(vocabulary.known):
        if token not in printable:
            head[token] = 0.0
            head[token, CONSTANT] = _NEVER_LOGIT / _FINAL_ENTRY
    end = head[vocabulary.id("<|im_end|>")]
    end[CONSTANT] = _END_LOGIT / _FINAL_ENTRY
    end[CLOCK] = (_LATE_END_LOGIT - _END_LOGIT) / _FINAL_ENTRY
    return head
