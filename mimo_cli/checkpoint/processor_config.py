"""`processor_config` of the release: media limits, rates and the ids of media tokens.

It wins over `preprocessor_config.json`, whose pixel limits differ (vision specification, section 2.2).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mimo_cli.checkpoint.fields import Fields

_UNIT_PIXELS = 32 * 32


@dataclass(frozen=True)
class ProcessorConfig:
    """How media become tokens. Pixels are after resizing; `fps` is the sampling rate in frames per second."""

    patch_size: int
    merge_size: int
    temporal_patch_size: int
    image_min_pixels: int
    image_max_pixels: int
    video_min_pixels: int
    video_max_pixels: int
    video_total_max_pixels: int
    fps: float
    min_frames: int
    max_frames: int
    video_audio_interleave_length: float
    audio_sampling_rate: int
    audio_group_size: int
    audio_segment_size: int
    audio_input_id_per_second: float
    image_token_id: int | None
    video_token_id: int | None
    audio_token_id: int | None
    vision_start_token_id: int | None
    vision_end_token_id: int | None
    video_start_token_id: int | None
    video_end_token_id: int | None
    audio_start_token_id: int | None
    audio_end_token_id: int | None

    @property
    def audio_tokens_per_second(self) -> float:
        """Language-model rows per second of sound: codes per second over the group size (6.25)."""
        return self.audio_input_id_per_second / self.audio_group_size

    @classmethod
    def from_dict(cls, config: Mapping[str, Any], where: str = "config.json") -> "ProcessorConfig":
        """Read `processor_config` of a whole config.json; image and video ids fall back to the top level.

        Missing or zero limits take the serving stack's fallbacks (vision specification, section 2.2).
        """
        top = Fields(config, where)
        fields = top.section("processor_config")

        def limit(key: str, fallback: int) -> int:
            return fields.integer(key, 0) or fallback

        def token(key: str) -> int | None:
            return fields.optional_integer(key) if fields.has(key) else top.optional_integer(key)

        return cls(
            patch_size=fields.integer("patch_size", 16, minimum=1),
            merge_size=fields.integer("merge_size", 2, minimum=1),
            temporal_patch_size=fields.integer("temporal_patch_size", 2, minimum=1),
            image_min_pixels=limit("image_min_pixels", 4 * _UNIT_PIXELS),
            image_max_pixels=limit("image_max_pixels", 4096 * _UNIT_PIXELS),
            video_min_pixels=limit("video_min_pixels", 4 * _UNIT_PIXELS),
            video_max_pixels=limit("video_max_pixels", 4096 * _UNIT_PIXELS),
            video_total_max_pixels=limit("video_total_max_pixels", 16384 * _UNIT_PIXELS),
            fps=fields.number("fps", 0.0) or 2.0,
            min_frames=limit("min_frames", 8),
            max_frames=limit("max_frames", 256),
            video_audio_interleave_length=fields.number("video_audio_interleave_length", 0.0),
            audio_sampling_rate=fields.integer("audio_sampling_rate", 24000, minimum=1),
            audio_group_size=fields.integer("audio_group_size", 4, minimum=1),
            audio_segment_size=fields.integer("audio_segment_size", 6000, minimum=1),
            audio_input_id_per_second=fields.number("audio_input_id_per_second", 25.0),
            image_token_id=token("image_token_id"),
            video_token_id=token("video_token_id"),
            audio_token_id=token("audio_token_id"),
            vision_start_token_id=token("vision_start_token_id"),
            vision_end_token_id=token("vision_end_token_id"),
            video_start_token_id=token("video_start_token_id"),
            video_end_token_id=token("video_end_token_id"),
            audio_start_token_id=token("audio_start_token_id"),
            audio_end_token_id=token("audio_end_token_id"),
        )
