"""The towers' public interface against the reference values, end to end and step by step.

Bounds are those of the reference sets: rows within 2e-3 from the raw picture and 1e-4 from given pixel values (1e-5 is
seen), codes at least 99 % equal from the file and all equal from the reference mel where the margin is above 1e-3.
"""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from mimo_cli.errors import CheckpointError, MediaError, UsageError
from mimo_cli.towers import Audio, Vision, load_audio, load_vision
from tests.support import audio_golden, vision_golden
from tests.support.engines import GOLDEN, MINIATURE


@cache
def vision(**variants: str) -> Vision:
    return load_vision(GOLDEN / "vision", **variants)


@cache
def audio(**settings: str) -> Audio:
    return load_audio(str(audio_golden.CHECKPOINT), **settings)


def gap(found: object, expected: np.ndarray) -> float:
    return float(np.abs(np.asarray(found) - expected).max())


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_raw_picture_gives_the_reference_rows(number: int) -> None:
    arrays = vision_golden.expected()
    pixel_values, grid_thw = vision().preprocess_image(arrays[f"img{number}_rgb"])
    assert grid_thw.tolist() == [arrays["image_grid_thw"][number].tolist()]
    assert gap(vision().encode(pixel_values, grid_thw), arrays[f"img{number}_embeds"]) <= 2e-3


def test_given_pixel_values_give_the_reference_rows() -> None:
    arrays = vision_golden.expected()
    rows = vision().encode(arrays["img2_pixel_values"], arrays["image_grid_thw"][2])
    assert gap(rows, arrays["img2_embeds"]) <= 1e-4
    rows = vision().encode(arrays["vid_pixel_values"], arrays["video_grid_thw"])
    assert gap(rows, arrays["vid_embeds"]) <= 1e-4


def test_a_raw_film_is_sampled_cut_and_encoded_as_the_reference() -> None:
    arrays = vision_golden.expected()
    pixel_values, grid_thw, times_s = vision().preprocess_video(arrays["vid_frames"], float(arrays["vid_fps"]))
    assert gap(pixel_values, arrays["vid_pixel_values"]) <= 2e-4
    assert np.array_equal(grid_thw, arrays["video_grid_thw"])
    assert np.array_equal(times_s, arrays["vid_timestamps"]) and times_s.dtype == np.float32
    assert gap(vision().encode(pixel_values, grid_thw), arrays["vid_embeds"]) <= 2e-3


@pytest.mark.parametrize(
    ("variant", "name"),
    [
        ({"sinks": "key0"}, "sink_key0"),
        ({"merger_norm": "rmsnorm"}, "merger_rmsnorm"),
        ({"statistics": "imagenet"}, "imagenet_stats"),
    ],
)
def test_every_disputed_reading_gives_its_own_reference_rows(variant: dict[str, str], name: str) -> None:
    arrays = vision_golden.expected()
    tower = vision(**variant)
    rows = tower.encode(*tower.preprocess_image(arrays["img0_rgb"]))
    assert gap(rows, arrays[f"img0_embeds_{name}"]) <= 2e-3
    assert gap(rows, arrays["img0_embeds"]) > 0.1


def test_vision_takes_tensors_as_well_as_arrays() -> None:
    arrays = vision_golden.expected()
    rgb = arrays["img2_rgb"]
    from_array = vision().preprocess_image(rgb)
    from_tensor = vision().preprocess_image(torch.from_numpy(rgb))
    assert np.array_equal(from_array[0], from_tensor[0])
    rows = [vision().encode(convert(from_array[0]), convert(from_array[1])) for convert in (np.asarray, torch.tensor)]
    assert torch.equal(*rows) and isinstance(rows[0], torch.Tensor)


def test_bfloat16_rows_stay_near_float32_rows() -> None:
    arrays = vision_golden.expected()
    rows = vision(dtype="bfloat16").encode(arrays["img2_pixel_values"], arrays["image_grid_thw"][2:])
    assert rows.dtype == torch.bfloat16
    similarity = torch.cosine_similarity(rows.float(), torch.tensor(arrays["img2_embeds"]))
    assert similarity.min() > 0.999


def test_a_changed_pixel_changes_the_rows() -> None:
    rgb = vision_golden.expected()["img2_rgb"].copy()
    before = vision().encode(*vision().preprocess_image(rgb))
    rgb[5, 5, 1] ^= 128
    assert (vision().encode(*vision().preprocess_image(rgb)) - before).abs().max() > 1e-3


@pytest.mark.parametrize("key", ["c01", "c02", "c06", "c07", "c08"])
def test_codes_of_the_reference_mel_are_equal_where_the_margin_decides(key: str) -> None:
    codes = audio().codes(audio_golden.expected()[f"{key}/mel"]).numpy()
    expected = audio_golden.expected()[f"{key}/codes"]
    sure = audio_golden.expected()[f"{key}/code_margin"] > 1e-3
    assert np.array_equal(codes[sure], expected[sure])
    assert (codes == expected).mean() >= 0.999


def test_codes_of_recordings_agree_with_the_reference_end_to_end() -> None:
    equal = total = 0
    for key in audio_golden.WHOLE_MEL:
        samples, rate = audio_golden.read_mono(key)
        codes = audio().codes(audio().mel(audio().resample(samples, rate))).numpy()
        expected = audio_golden.expected()[f"{key}/codes"]
        equal += int((codes == expected).sum())
        total += expected.size
    assert equal / total >= 0.99


@pytest.mark.parametrize("key", ["c01", "c02", "c06"])
def test_rows_of_the_reference_codes_are_the_reference_rows(key: str) -> None:
    rows = audio().encode_codes(audio_golden.tensor(f"{key}/codes"))
    assert gap(rows, audio_golden.expected()[f"{key}/projected"]) <= 1e-4


def test_rounded_tables_give_the_reference_codes_of_rounded_tables() -> None:
    codes = audio(tables="rounded").codes(audio_golden.expected()["c02/mel"]).numpy()
    rounded, exact = (audio_golden.expected()[f"c02/{name}"] for name in ("codes_bf16_tables", "codes"))
    assert (codes == rounded).mean() >= 0.99 > (codes == exact).mean()


def test_a_recording_gives_as_many_rows_as_its_length_says() -> None:
    counts = json.loads((audio_golden.FOLDER / "token_counts.json").read_text())
    samples, rate = audio_golden.read_mono("c02")
    rows = audio().encode(samples, rate)
    assert rows.shape == (audio_golden.CLIPS["c02"]["tokens"], 96)
    assert audio().encode(np.zeros(1, np.float32), 24_000).shape == (1, 96)
    assert counts


def test_resampling_gives_the_reference_waveform() -> None:
    samples, rate = audio_golden.read_mono("c01")
    waveform = audio().resample(samples, rate)
    assert rate == 48_000 and waveform.shape == (2400,) and waveform.dtype == np.float32
    assert gap(waveform, audio_golden.expected()["c01/wav24k"]) <= 2e-5


def test_audio_takes_tensors_as_well_as_arrays() -> None:
    samples, rate = audio_golden.read_mono("c01")
    assert torch.equal(audio().encode(samples, rate), audio().encode(torch.from_numpy(samples), rate))
    mel = audio().mel(audio().resample(torch.from_numpy(samples), rate))
    assert mel.shape == (11, 128) and torch.equal(audio().codes(mel), audio().codes(torch.from_numpy(mel)))


def test_a_changed_sample_and_a_changed_mel_value_change_the_codes() -> None:
    samples, rate = audio_golden.read_mono("c01")
    before = audio().codes(audio().mel(audio().resample(samples, rate)))
    louder = samples.copy()
    louder[2000] += 0.5
    assert not torch.equal(audio().codes(audio().mel(audio().resample(louder, rate))), before)
    mel = audio_golden.expected()["c01/mel"].copy()
    mel[3, 40] += 5
    assert not torch.equal(audio().codes(mel), audio().codes(audio_golden.expected()["c01/mel"]))


def test_a_whole_models_folder_serves_as_well() -> None:
    tower = load_vision(MINIATURE)
    assert tower.encode(*tower.preprocess_image(np.zeros((96, 128, 3), np.uint8))).shape == (12, 128)
    assert load_audio(MINIATURE).encode(np.zeros(24_000, np.float32), 24_000).shape[0] == 7


@pytest.mark.parametrize(
    ("load", "settings", "message"),
    [
        (load_vision, {"dtype": "float16"}, "dtype `float16`"),
        (load_vision, {"dtype": "auto"}, "dtype `auto`"),
        (load_vision, {"sinks": "none"}, "sinks `none`"),
        (load_vision, {"merger_norm": "x"}, "merger_norm"),
        (load_vision, {"statistics": "x"}, "statistics"),
        (load_vision, {"device": "gpu"}, "device `gpu`"),
        (load_vision, {"device": "cuda:99"}, "device `cuda:99`"),
    ],
)
def test_settings_that_do_not_exist_are_usage_errors(load: object, settings: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load(GOLDEN / "vision", **settings)


def test_unknown_audio_tables_are_a_usage_error() -> None:
    with pytest.raises(UsageError, match="tables `half`"):
        load_audio(audio_golden.CHECKPOINT, tables="half")


def test_folders_without_the_tower_are_checkpoint_errors(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json` is missing"):
        load_vision(tmp_path)
    with pytest.raises(CheckpointError, match="audio_config"):
        load_audio(GOLDEN / "vision")
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="JSON object"):
        load_vision(tmp_path)


@pytest.mark.parametrize(
    "call",
    [
        lambda: vision().preprocess_image(np.zeros((4, 4), np.uint8)),
        lambda: vision().preprocess_image(np.zeros((4, 4, 3), np.float32)),
        lambda: vision().preprocess_video(np.zeros((1, 40, 40, 3), np.uint8), 1.0),
        lambda: vision().encode(np.zeros((5, 1536), np.float32), [(1, 2, 2)]),
        lambda: audio().mel(np.array([], np.float32)),
        lambda: audio().mel(np.array([np.nan], np.float32)),
        lambda: audio().resample(np.zeros(5, np.float32), 0),
        lambda: audio().codes(np.zeros((4, 3), np.float32)),
    ],
)
def test_impossible_media_are_media_errors(call: object) -> None:
    with pytest.raises(MediaError):
        call()
