"""A media file as a model gets it: kind, size after preprocessing, tokens, frames, seconds."""

from typing import Any

from mimo_cli.chat.messages import AudioPart, ImagePart, MediaPart
from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.commands.loading import media_opener
from mimo_cli.commands.model_choice import CONFIG_FILE, ModelChoice
from mimo_cli.commands.options import MediaReadingOptions

_PATCH_PX = 16
_AUDIO_RATE_HZ = 24_000


def media_view(choice: ModelChoice, source: str, options: MediaReadingOptions) -> dict[str, Any]:
    """Return the facts of a medium. Raises UsageError or MediaError where it cannot be opened."""
    config = ModelConfig.from_file(choice.folder / CONFIG_FILE)
    part = media_opener(config, choice, options).open(source)
    return {"source": source, "kind": part.kind, **_facts(part), "notes": list(getattr(part.media, "notes", ()))}


def _facts(part: MediaPart) -> dict[str, Any]:
    if isinstance(part, AudioPart):
        return {"seconds": part.media.num_samples_24k / _AUDIO_RATE_HZ, "tokens": part.media.num_tokens}
    media = part.media
    steps, rows, columns = media.grid_thw
    size = {
        "pixels": f"{media.size_px[0]} x {media.size_px[1]}",
        "resized_to": f"{columns * _PATCH_PX} x {rows * _PATCH_PX}",
        "patches": steps * rows * columns,
        "tokens": media.num_tokens,
    }
    if isinstance(part, ImagePart):
        return size
    sound = part.media.audio
    return {
        **size,
        "steps": steps,
        "frames": 2 * steps,
        "step_tokens": part.media.step_tokens,
        "seconds": float(part.media.segment_end_s),
        "timestamps": [f"{float(time_s):.2f}" for time_s in part.media.timestamps_s],
        "sound_tokens": sound.num_tokens if sound else 0,
    }
