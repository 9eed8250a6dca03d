"""Audio encoder of the language model: codes of one clip to the rows that stand for it, 6.25 a second.

    codes [K, channels] -> groups of 4 -> sum of one embedding per channel -> local transformer inside each group
    -> 4 positions side by side -> projection -> rows [ceil(K / 4), out_hidden_size]

Letters: G groups, P positions of a group (`group_size`), d = input_local_dim. Parameter names are the checkpoint's.
Source: audio specification, section 9. Where the codes come from: `audio_tokenizer.py`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimo_cli.checkpoint.audio_config import AudioConfig
from mimo_cli.errors import MediaError
from mimo_cli.model.audio_attention import rotary_tables, rotate
from mimo_cli.model.audio_tokenizer import gelu
from mimo_cli.model.mlp import MLP
from mimo_cli.model.norm import RMSNorm

_GROUPS_PER_PASS = 512
"""The projection's inner layer is 16,384 wide in V2.5: 32 MiB in float32 for so many groups, 2.8 GiB for two hours."""


class LocalAttention(nn.Module):
    """Attention among the few positions of a group, without a mask unless `input_full_attention` is off."""

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        self.heads = config.input_local_attn_heads
        self.is_causal = not config.input_full_attention
        width = self.heads * config.input_local_head_dim
        self.q_proj = nn.Linear(config.input_local_dim, width)
        self.k_proj = nn.Linear(config.input_local_dim, width)
        self.v_proj = nn.Linear(config.input_local_dim, width)
        self.o_proj = nn.Linear(width, config.input_local_dim, bias=False)

    def forward(self, hidden_states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """[G, P, d] -> [G, P, d]; cos and sin [P, D]."""
        q, k, v = (
            projection(hidden_states).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [G, H, P, D]
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        out = F.scaled_dot_product_attention(rotate(q, cos, sin), rotate(k, cos, sin), v, is_causal=self.is_causal)
        return self.o_proj(out.transpose(1, 2).flatten(2))


class LocalBlock(nn.Module):
    """One Qwen2-like block: norm, attention, norm, SwiGLU, with residuals."""

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.input_local_dim, config.rms_norm_eps)
        self.self_attn = LocalAttention(config)
        self.post_attention_layernorm = RMSNorm(config.input_local_dim, config.rms_norm_eps)
        self.mlp = MLP(config.input_local_dim, config.input_local_intermediate_size)

    def forward(self, hidden_states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """[G, P, d] -> [G, P, d]."""
        hidden_states = hidden_states + self.self_attn(self.input_layernorm(hidden_states), cos, sin)
        return hidden_states + self.mlp(self.post_attention_layernorm(hidden_states))


class LocalTransformer(nn.Module):
    """The blocks and, where the configuration says so, the final norm. Groups are a batch and never see each other."""

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(LocalBlock(config) for _ in range(config.input_local_layers))
        if config.add_post_norm:
            self.norm = RMSNorm(config.input_local_dim, config.rms_norm_eps)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[G, P, d] -> [G, P, d]."""
        config = self.config
        cos, sin = rotary_tables(
            config.group_size,
            config.input_local_head_dim,
            config.rope_theta,
            rounded=False,
            dtype=hidden_states.dtype,
            device=hidden_states.device,
        )
        for layer in self.layers:
            hidden_states = layer(hidden_states, cos, sin)
        return self.norm(hidden_states) if config.add_post_norm else hidden_states


class ExactGELU(nn.Module):
    """`gelu` as a module, for a sequence whose numbering is the checkpoint's."""

    def forward(self, states: Tensor) -> Tensor:
        """Any shape, same dtype."""
        return gelu(states)


class Projection(nn.Module):
    """A flattened group to one row: an MLP `mlp.0`, `mlp.2`, or one matrix `weight` where `projection_layers` is 1."""

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        width = config.group_size * config.input_local_dim
        self.is_mlp = config.projection_layers == 2
        if self.is_mlp:
            inner = nn.Linear(width, 4 * width, bias=False)
            outer = nn.Linear(4 * width, config.out_hidden_size, bias=False)
            self.mlp = nn.Sequential(inner, ExactGELU(), outer)
        else:
            self.weight = nn.Parameter(torch.empty(config.out_hidden_size, width))
            nn.init.normal_(self.weight, std=width**-0.5)

    def forward(self, groups: Tensor) -> Tensor:
        """[G, P * d] -> [G, out_hidden_size]."""
        return self.mlp(groups) if self.is_mlp else F.linear(groups, self.weight)


class AudioEncoder(nn.Module):
    """Speech embeddings, local transformer and projection; float32 or bfloat16, differentiable in its weights."""

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        self.config = config
        self.speech_embeddings = nn.ModuleList(
            nn.Embedding(size, config.input_local_dim) for size in config.speech_vocab_size
        )
        self.audio_encoder = nn.ModuleDict(
            {"input_local_transformer": LocalTransformer(config), "projection": Projection(config)}
        )

    def forward(self, codes: Tensor) -> Tensor:
        """Encode the codes [K, channels] of ONE clip to rows [ceil(K / group_size), out_hidden_size].

        A batch [B, K, channels] of clips gives [B, rows, out_hidden_size]; shorter clips are to be padded by repeating
        their last code, and the rows beyond their own dropped. Channels beyond `audio_channels` are not used. The codes
        of several clips must not be joined first: groups would straddle them. Peak memory beyond the result is one pass
        of 512 groups. Raises MediaError for codes of another shape or outside the embeddings.
        """
        config = self.config
        self._check(codes)
        codes = codes[..., : config.audio_channels].to(next(self.parameters()).device)
        groups = pad_to_groups(codes, config.group_size).unflatten(-2, (-1, config.group_size))  # [.., G, P, channels]
        passes = groups.flatten(0, -3).split(_GROUPS_PER_PASS)
        rows = torch.cat([self.project(self.local(self.embed(part))) for part in passes])
        return rows.view(*groups.shape[:-2], config.out_hidden_size)

    def embed(self, groups: Tensor) -> Tensor:
        """Sum the embeddings of a code's channels, in float32: [G, P, channels] -> [G, P, d]."""
        like = next(self.speech_embeddings.parameters())
        total = torch.zeros((), device=like.device)
        for channel, embedding in enumerate(self.speech_embeddings):
            total = total + embedding(groups[..., channel]).float()
        return total.to(like.dtype)

    def local(self, embedded: Tensor) -> Tensor:
        """Let the positions of each group see each other: [G, P, d] -> [G, P, d]."""
        return self.audio_encoder["input_local_transformer"](embedded)

    def project(self, states: Tensor) -> Tensor:
        """Turn each group into a row: [G, P, d] -> [G, out_hidden_size]."""
        return self.audio_encoder["projection"](states.flatten(-2))

    def _check(self, codes: Tensor) -> None:
        config = self.config
        if codes.dim() not in (2, 3) or codes.shape[-2] == 0 or codes.shape[-1] < config.audio_channels:
            expected = f"[codes, {config.audio_channels}]"
            raise MediaError(f"audio codes of shape {list(codes.shape)} were given, {expected} expected")
        lowest, highest = codes.flatten(0, -2).aminmax(dim=0)
        for channel, size in enumerate(config.speech_vocab_size):
            if lowest[channel] < 0 or highest[channel] >= size:
                found = int(lowest[channel] if lowest[channel] < 0 else highest[channel])
                raise MediaError(f"audio code {found} in channel {channel} is outside its {size} embeddings")


def pad_to_groups(codes: Tensor, group_size: int) -> Tensor:
    """Repeat the last code of a clip [.., K, channels] until K is a multiple of `group_size`."""
    missing = -codes.shape[-2] % group_size
    return torch.cat([codes, codes[..., -1:, :].expand(*codes.shape[:-2], missing, -1)], dim=-2)
