"""Audio tokenizer, encoder half: log-mel rows to codes, 25 a second. The codec's decoder is no part of this package.

    mel [T, n_mels] 100/s -> conv1, conv2 50/s -> causal blocks, every other one windowed, + skip -> strided conv 25/s
    -> LayerNorm -> residual quantizer -> codes [K, num_quantizers], K = ceil(T / 4)

Letters: B batch, T mel rows, C = ceil(T / 2) positions, K codes, d = d_model. Parameter names are the checkpoint's
after `encoder.`. A piece (at most `audio_segment_size` rows) is encoded alone: positions and attention start anew.
Source: audio specification, sections 7, 8 and 10.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mimo_cli.checkpoint.audio_config import AudioTokenizerConfig
from mimo_cli.errors import MediaError
from mimo_cli.model.audio_attention import band_attention, rotary_tables, rotate
from mimo_cli.model.audio_quantizer import ResidualQuantizer


def gelu(states: Tensor) -> Tensor:
    """Exact GELU, evaluated in float32 whatever the dtype: large negative inputs lose 9 % in bfloat16."""
    return F.gelu(states.float()).to(states.dtype)


class AudioAttention(nn.Module):
    """Self-attention with rotary positions over a band of keys; the key projection has no bias."""

    def __init__(self, config: AudioTokenizerConfig, layer: int) -> None:
        super().__init__()
        self.heads = config.encoder_attention_heads
        before, after = config.encoder_attn_window_size if config.is_windowed(layer) else (-1, -1)
        self.band = (before, 0 if config.encoder_causal else after)
        self.q_proj = nn.Linear(config.d_model, config.d_model)
        self.k_proj = nn.Linear(config.d_model, config.d_model, bias=False)
        self.v_proj = nn.Linear(config.d_model, config.d_model)
        self.out_proj = nn.Linear(config.d_model, config.d_model)

    def forward(self, hidden_states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Attend within each piece: [B, C, d] -> [B, C, d]."""
        q, k, v = (
            projection(hidden_states).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, H, C, D]
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        out = band_attention(rotate(q, cos, sin), rotate(k, cos, sin), v, *self.band)
        return self.out_proj(out.transpose(1, 2).flatten(2))


class AudioTokenizerBlock(nn.Module):
    """Pre-norm transformer block; `final_layer_norm` is the vendor's name of its second norm."""

    def __init__(self, config: AudioTokenizerConfig, layer: int) -> None:
        super().__init__()
        self.self_attn = AudioAttention(config, layer)
        self.self_attn_layer_norm = nn.LayerNorm(config.d_model)
        self.fc1 = nn.Linear(config.d_model, config.encoder_ffn_dim)
        self.fc2 = nn.Linear(config.encoder_ffn_dim, config.d_model)
        self.final_layer_norm = nn.LayerNorm(config.d_model)

    def forward(self, hidden_states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Apply attention and MLP, each with its residual: [B, C, d] -> [B, C, d]."""
        hidden_states = hidden_states + self.self_attn(self.self_attn_layer_norm(hidden_states), cos, sin)
        return hidden_states + self.fc2(gelu(self.fc1(self.final_layer_norm(hidden_states))))


class AudioTokenizer(nn.Module):
    """Encoder and quantizer of the codec; float32 or bfloat16, code books always float32.

    rounded_tables rounds code books and rotary frequencies to bfloat16 before use, in whatever dtype the maths runs.
    That is what the vendor's loaders do and most likely what the language model was trained on, so it is the default
    for conversation. The plain float32 function of the stored weights, which reference codes are usually computed with,
    is `rounded_tables=False`; about 95 % of codes agree between the two (98-99 % of the first channel).
    """

    def __init__(self, config: AudioTokenizerConfig, *, rounded_tables: bool = True) -> None:
        super().__init__()
        self.config = config
        self.rounded_tables = rounded_tables
        d = config.d_model
        self.conv1 = nn.Conv1d(config.n_mels, d, config.kernel_size, padding=1)
        self.conv2 = nn.Conv1d(d, d, config.kernel_size, stride=config.stride_size, padding=1)
        self.layers = nn.ModuleList(AudioTokenizerBlock(config, layer) for layer in range(config.encoder_layers))
        self.layer_norm = nn.LayerNorm(d)
        self.down_sample_layer = nn.Sequential(nn.Conv1d(d, d, config.avg_pooler, stride=config.avg_pooler, bias=False))
        self.down_sample_norm = nn.LayerNorm(d)
        self.quantizer = ResidualQuantizer(config.codebook_size, d, rounded=rounded_tables)

    def codes(self, mel: Tensor, segment_frames: int | None = None) -> Tensor:
        """Encode mel rows [T, n_mels] to codes [ceil(T/4), num_quantizers] int64: one piece, or a whole clip, which is
        encoded in pieces of `segment_frames` (the checkpoint's `audio_segment_size`), one at a time.
        """
        self._check(mel)
        with torch.no_grad():
            pieces = mel.split(segment_frames or len(mel))
            return torch.cat([self.quantize(self.features(piece)) for piece in pieces])

    def features(self, mel: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Encode the mel rows [T, n_mels] of one piece to the quantizer's input [K, d]. Differentiable.

        A padded batch [B, T, n_mels] with the rows of each piece in `lengths` [B] gives [B, K, d]; padding changes
        nothing, and what is returned beyond ceil(length/4) means nothing. (The release pads before the convolutions,
        which changes the last code of shorter pieces; alone and batched agree here.)
        """
        self._check(mel)
        if mel.dim() == 2:
            return self._features(mel[None], None)[0]
        if lengths is not None and not self.config.encoder_causal:
            # Without the causal mask padding would be seen; such codecs run piece by piece.
            alone = [self._features(piece[None, :rows], None)[0] for piece, rows in zip(mel, lengths, strict=True)]
            return nn.utils.rnn.pad_sequence(alone, batch_first=True)
        return self._features(mel, lengths)

    def quantize(self, features: Tensor) -> Tensor:
        """Name the code words of features [..., d]: [..., num_quantizers] int64, not differentiable."""
        return self.quantizer.encode(features)

    def dequantize(self, codes: Tensor) -> Tensor:
        """Sum the code words of codes [..., n], all stages or the first few: float32 [..., d]."""
        return self.quantizer.decode(codes)

    def _features(self, mel: Tensor, lengths: Tensor | None) -> Tensor:
        weight = self.conv1.weight
        rows = lengths.to(weight.device) if lengths is not None else None
        hidden_states = _clear_padding(mel.to(weight.device, weight.dtype).transpose(1, 2), rows)  # [B, n_mels, T]
        hidden_states = _clear_padding(gelu(self.conv1(hidden_states)), rows)
        hidden_states = gelu(self.conv2(hidden_states)).transpose(1, 2)  # [B, C, d]
        hidden_states = self._run_layers(hidden_states)
        hidden_states = self.layer_norm(hidden_states).transpose(1, 2)  # [B, d, C]
        hidden_states = _clear_padding(hidden_states, None if rows is None else (rows + 1) // 2)
        hidden_states = F.pad(hidden_states, (0, hidden_states.shape[-1] % 2))  # an odd C gets one zero
        return self.down_sample_norm(gelu(self.down_sample_layer(hidden_states)).transpose(1, 2))

    def _run_layers(self, hidden_states: Tensor) -> Tensor:
        config = self.config
        cos, sin = rotary_tables(
            hidden_states.shape[1],
            config.d_model // config.encoder_attention_heads,
            config.rope_theta,
            rounded=self.rounded_tables,
            dtype=hidden_states.dtype,
            device=hidden_states.device,
        )
        skipped = None
        for number, layer in enumerate(self.layers, start=1):
            hidden_states = layer(hidden_states, cos, sin)
            if number == config.encoder_skip_layer_id:
                skipped = hidden_states
        return hidden_states if skipped is None else hidden_states + skipped

    def _check(self, mel: Tensor) -> None:
        if mel.dim() not in (2, 3) or mel.shape[-1] != self.config.n_mels or mel.shape[-2] == 0:
            raise MediaError(
                f"a mel spectrogram of shape {list(mel.shape)} was given, [rows, {self.config.n_mels}] expected"
            )


def _clear_padding(states: Tensor, rows: Tensor | None) -> Tensor:
    """Put zeros where a shorter piece of the batch [B, d, T] has no rows, as the convolutions' own padding is zero."""
    if rows is None:
        return states
    keep = torch.arange(states.shape[-1], device=states.device) < rows[:, None]
    return states * keep[:, None].to(states.dtype)
