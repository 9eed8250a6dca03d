"""NativeAttention: the attention half of a decoder layer in one call of the kernels, for the few tokens of a step.

norm -> qkv -> rotary embedding -> KV cache -> attention -> o_proj -> residual sum -> norm

Nothing is computed otherwise than by the modules it stands for, given the same kernels: it only saves the ways through
Python and torch between them. Each takes 0.15 to 0.3 ms, as the weights of a product push all code out of the caches.
"""

from torch import Tensor, nn

from mimo_cli.kvcache.cache import LayerKV
from mimo_cli.model.attention import Attention
from mimo_cli.model.norm import RMSNorm
from mimo_cli.model.rope import RotaryTable
from mimo_cli.quant.kernels import Heads, Kernels
from mimo_cli.quant.linear import PackedLinear, packed_product


class NativeAttention(nn.Module):
    """Stands for `before`, `attention`, the residual sum and `after`; has no parameters of its own."""

    def __init__(self, kernels: Kernels, before: RMSNorm, attention: Attention, after: RMSNorm) -> None:
        super().__init__()
        self.kernels = kernels
        self.parts = before, attention, after  # in a tuple: as attributes they would be registered twice

    @staticmethod
    def fits(attention: Attention) -> bool:
        """Whether the kernels read both projections."""
        return isinstance(attention.qkv_proj, PackedLinear) and isinstance(attention.o_proj, PackedLinear)

    def room(self, hidden_states: Tensor, cache: LayerKV | None, start: int) -> tuple[Tensor, Tensor] | None:
        """Return the keys and values that a few tokens of one sequence see, their own places to be written.

        None where the modules must do it: with gradients, many tokens, several sequences, or when the cache moves.
        """
        batch, tokens, _ = hidden_states.shape
        before, _, after = self.parts
        if cache is None or batch != 1:
            return None
        if not (before.is_native(hidden_states, tokens) and after.is_native(hidden_states, tokens)):
            return None
        return cache.reserve(start, tokens, hidden_states.dtype)

    def forward(self, hidden_states: Tensor, rotary: RotaryTable, room: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """[1, T, hidden] -> the residual stream after attention and its norm, both [1, T, hidden]."""
        before, attention, after = self.parts
        a = attention.attention
        total, normed = self.kernels.attention_block(
            hidden_states[0].contiguous(),
            (before.native, after.native),
            (packed_product(attention.qkv_proj), packed_product(attention.o_proj)),
            (rotary.cos.contiguous(), rotary.sin.contiguous()),
            Heads(a.num_heads, a.num_kv_heads, a.head_dim, a.v_head_dim),
            attention.value_scale,
            (room[0][0], room[1][0]),
            window=a.window,
            sinks=attention.attention_sink_bias,
        )
        return total[None], normed[None]
