import pytest

from mimo_cli.chat.media_options import MediaChoices, MediaOptions
from mimo_cli.checkpoint.audio_config import AudioTokenizerConfig
from mimo_cli.checkpoint.processor_config import ProcessorConfig
from mimo_cli.errors import UsageError

PROCESSOR = ProcessorConfig.from_dict(
    {
        "processor_config": {
            "patch_size": 14,
            "image_min_pixels": 1000,
            "image_max_pixels": 2000,
            "video_min_pixels": 3000,
            "video_max_pixels": 4000,
            "video_total_max_pixels": 50000,
            "fps": 0.5,
            "max_frames": 60,
            "audio_segment_size": 300,
            "audio_group_size": 2,
        }
    }
)
CODEC = AudioTokenizerConfig.from_dict(
    {
        "d_model": 8,
        "encoder_layers": 1,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 8,
        "num_quantizers": 1,
        "codebook_size": [4],
        "n_mels": 64,
        "nfft": 480,
        "hop_length": 120,
        "window_size": 480,
        "sampling_rate": 12000,
        "fmin": 0,
    }
)


def test_the_checkpoints_numbers_are_taken() -> None:
    options = MediaOptions.of_checkpoint(PROCESSOR, CODEC)
    assert (options.image.min_pixels, options.image.max_pixels, options.image.pixels.patch_size) == (1000, 2000, 14)
    assert (options.video.min_pixels, options.video.max_pixels, options.video.total_max_pixels) == (3000, 4000, 50000)
    assert (options.video.fps, options.video.min_frames, options.video.max_frames) == (0.5, 8, 60)
    assert (options.audio.segment_frames, options.audio.group_size) == (300, 2)
    assert (options.audio.mel.n_mels, options.audio.mel.hop_length, options.audio.mel.sampling_rate) == (64, 120, 12000)
    assert options.video.use_audio and not options.image.faithful


def test_the_callers_choices_win() -> None:
    choices = MediaChoices(faithful=True, fps=3.0, max_pixels=1500, video_audio=False)
    options = MediaOptions.of_checkpoint(PROCESSOR, choices=choices)
    assert options.image.faithful and options.image.max_pixels == 1500 and options.image.min_pixels == 1000
    assert (options.video.fps, options.video.use_audio) == (3.0, False)
    # The limit is below the checkpoint's minimum for frames, which follows it.
    assert (options.video.min_pixels, options.video.max_pixels) == (1500, 1500)


def test_choices_out_of_range_are_usage_errors() -> None:
    with pytest.raises(UsageError, match="above 0 frames"):
        MediaOptions.of_checkpoint(PROCESSOR, choices=MediaChoices(fps=0.0))


def test_every_disputed_reading_of_pictures_can_be_chosen() -> None:
    choices = MediaChoices(
        statistics="imagenet", resize_filter="bicubic_antialias", small_side="floor", pixel_limits="preprocessor"
    )
    options = MediaOptions.of_checkpoint(PROCESSOR, CODEC, choices)
    for pixels in (options.image.pixels, options.video.pixels):
        assert (pixels.statistics, pixels.resize_filter, pixels.small_side) == (
            "imagenet",
            "bicubic_antialias",
            "floor",
        )
    assert (options.image.min_pixels, options.image.max_pixels) == (3136, 12845056)
    assert options.video.max_pixels == 4000
