"""`vision_config` of the release: the shape of the vision tower. Source: vision specification, section 2.1."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mimo_cli.checkpoint.fields import Fields
from mimo_cli.errors import CheckpointError

FULL, ROW, COLUMN = -1, 0, 1
"""Entries of `vit_window_attn_types`: full attention, window in row order, window in column order."""


@dataclass(frozen=True)
class VisionConfig:
    """Facts of the vision tower, with the vendor's names. `visual_token_window_size` counts tokens on each side."""

    depth: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_key_value_heads: int
    head_dim: int
    in_chans: int
    patch_size: int
    temporal_patch_size: int
    spatial_merge_size: int
    out_hidden_size: int
    vit_window_attn_types: tuple[int, ...]
    visual_token_window_size: int
    use_sink: bool
    rms_norm_eps: float
    rope_theta: float
    sink_form: Literal["denominator", "key0", "ignore"] = "denominator"
    merger_norm: Literal["layernorm", "rmsnorm"] = "layernorm"

    @property
    def unit_tokens(self) -> int:
        """Patches that merge into one language-model token."""
        return self.spatial_merge_size**2

    @property
    def patch_values(self) -> int:
        """Values of one flattened patch: channels x time x rows x columns."""
        return self.in_chans * self.temporal_patch_size * self.patch_size**2

    def is_windowed(self, block: int) -> bool:
        """Tell whether a block sees a window only (such blocks carry sinks)."""
        return self.vit_window_attn_types[block] != FULL

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "config.json: vision_config") -> "VisionConfig":
        """Read `vision_config`; raises CheckpointError naming what is missing or not implemented."""
        fields = Fields(values, where)
        fields.require("hidden_act", ("silu",), "silu")
        depth = fields.integer("depth", minimum=1, maximum=10_000)
        full = fields.integers("fullatt_block_indexes", ())
        kinds = fields.integers("vit_window_attn_types", tuple(FULL if i in full else ROW for i in range(depth)))
        if len(kinds) != depth or any(kind not in (FULL, ROW, COLUMN) for kind in kinds):
            raise CheckpointError(
                f"{where}: `vit_window_attn_types` must hold {depth} entries of -1, 0 or 1, found {kinds}"
            )
        if full and full != tuple(i for i, kind in enumerate(kinds) if kind == FULL):
            raise CheckpointError(
                f"{where}: `fullatt_block_indexes` {full} contradicts `vit_window_attn_types` {kinds}"
            )
        heads = fields.integer("num_heads", minimum=1)
        kv_heads = fields.integer("num_key_value_heads", heads, minimum=1)
        if heads % kv_heads:
            raise CheckpointError(f"{where}: {heads} heads cannot share {kv_heads} key/value heads")
        head_dim = fields.integer("qk_channels", 64, minimum=4)
        if head_dim % 4:  # half of the rotary pairs turn with the row, half with the column
            raise CheckpointError(f"{where}: `qk_channels` must be a multiple of 4, found {head_dim}")
        return cls(
            depth=depth,
            hidden_size=fields.integer("hidden_size", minimum=1),
            intermediate_size=fields.integer("intermediate_size", minimum=1),
            num_heads=heads,
            num_key_value_heads=kv_heads,
            head_dim=head_dim,
            in_chans=fields.integer("in_chans", fields.integer("in_channels", 3), minimum=1),
            patch_size=fields.integer("patch_size", minimum=1),
            temporal_patch_size=fields.integer("temporal_patch_size", 2, minimum=1),
            spatial_merge_size=fields.integer("spatial_merge_size", 2, minimum=1),
            out_hidden_size=fields.integer("out_hidden_size", minimum=1),
            vit_window_attn_types=kinds,
            visual_token_window_size=fields.integer("visual_token_window_size", 64),
            use_sink=fields.flag("use_sink", False),
            rms_norm_eps=fields.number("rms_norm_eps", 1e-6),
            rope_theta=fields.number("rope_theta", 10000.0),
        )
