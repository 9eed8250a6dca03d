"""The vision tower against reference values, and what must hold for any weights."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from mimo_cli.checkpoint.names import vision_weights
from mimo_cli.checkpoint.vision_config import VisionConfig
from mimo_cli.errors import MediaError
from mimo_cli.media.image import preprocess_image
from mimo_cli.media.options import ImageOptions, PixelOptions
from mimo_cli.model import vision
from mimo_cli.model.vision import VisionTower
from tests.support.vision_golden import config, expected, tower, weights

EMBEDS_TOLERANCE = 1e-4  # independent float32 towers differ by 1.1e-5 in the embeddings,
BLOCK_TOLERANCE = 2e-4  # by 1.8e-5 in block outputs, whose values reach 18
EQUAL_TOLERANCE = 2e-5  # two orders of summation in float32

IMAGE_GRIDS = [tuple(map(int, row)) for row in expected()["image_grid_thw"]]


def pixel_values(image: int, **pixels: str) -> torch.Tensor:
    """Preprocess a reference picture; test_patches.py holds the result against the reference's."""
    options = ImageOptions(pixels=PixelOptions(**pixels))  # type: ignore[arg-type]
    return torch.from_numpy(preprocess_image(expected()[f"img{image}_rgb"], options)[0])


@torch.no_grad()
def encode(module: VisionTower, values: torch.Tensor, grid: list[tuple[int, int, int]]) -> np.ndarray:
    return module(values, grid).float().numpy()


def error(found: np.ndarray, name: str) -> float:
    """Return the largest absolute difference to a reference array."""
    wanted = expected()[name]
    assert found.shape == wanted.shape
    return float(np.abs(found - wanted).max())


def small_config(**changes: object) -> VisionConfig:
    """A tower of four narrow blocks, one of each order and two full ones."""
    fields = {"depth": 4, "hidden_size": 32, "intermediate_size": 48, "out_hidden_size": 24, "num_heads": 4}
    fields |= {"num_key_value_heads": 2, "head_dim": 8, "vit_window_attn_types": (-1, 0, 1, -1)}
    return dataclasses.replace(config(), **(fields | {"visual_token_window_size": 8} | changes))


@pytest.fixture
def small() -> Iterator[VisionTower]:
    torch.manual_seed(5)
    module = VisionTower(small_config())
    with torch.no_grad():
        for block in module.blocks:
            if block.attn.sinks is not None:
                block.attn.sinks.normal_()
    yield module


@pytest.mark.parametrize("image", [0, 1, 2])
def test_rows_of_pictures_equal_the_reference(image: int) -> None:
    found = encode(tower(), pixel_values(image), [IMAGE_GRIDS[image]])
    assert error(found, f"img{image}_embeds") < EMBEDS_TOLERANCE


def test_rows_from_the_reference_pixel_values_equal_the_reference() -> None:
    film = torch.from_numpy(expected()["vid_pixel_values"])
    assert error(tower()(film, expected()["video_grid_thw"]).detach().numpy(), "vid_embeds") < EMBEDS_TOLERANCE
    picture = torch.from_numpy(expected()["img2_pixel_values"])
    assert error(encode(tower(), picture, [IMAGE_GRIDS[2]]), "img2_embeds") < EMBEDS_TOLERANCE


def test_every_block_equals_the_reference_in_its_own_order() -> None:
    module, found = tower(), {}
    watched = {"patch_embed": module.patch_embed, "merger_norm": module.merger.ln_q}
    watched |= {f"block_{i:02d}": module.blocks[i] for i in (0, 1, 4, 5, 8, 9)}
    for name, part in watched.items():
        part.register_forward_hook(lambda _m, _i, out, name=name: found.__setitem__(name, out))
    encode(module, pixel_values(0), [IMAGE_GRIDS[0]])
    for name, out in found.items():
        assert error(out.numpy()[::3], f"img0_{name}_every_3") < BLOCK_TOLERANCE, name
    assert len(found) == 8


@pytest.mark.parametrize(
    ("name", "changes", "pixels"),
    [
        ("sink_key0", {"sink_form": "key0"}, {}),
        ("sink_ignored", {"sink_form": "ignore"}, {}),
        ("merger_rmsnorm", {"merger_norm": "rmsnorm"}, {}),
        ("imagenet_stats", {}, {"statistics": "imagenet"}),
    ],
)
def test_disputed_variants_equal_their_references(name: str, changes: dict, pixels: dict) -> None:
    found = encode(tower(**changes), pixel_values(0, **pixels), [IMAGE_GRIDS[0]])
    assert error(found, f"img0_embeds_{name}") < EMBEDS_TOLERANCE
    assert error(found, "img0_embeds") > 0.3  # the variants are far apart: 0.5 or more


def test_bfloat16_stays_close_to_float32() -> None:
    found = encode(tower(torch.bfloat16), pixel_values(0), [IMAGE_GRIDS[0]])
    assert error(found, "img0_embeds") < 0.15  # the reference loses 0.1 in bfloat16
    wanted = expected()["img0_embeds"]
    cosine = (found * wanted).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(wanted, axis=1)
    assert cosine.min() > 0.999


def test_packed_pictures_equal_single_calls() -> None:
    values = [pixel_values(i) for i in range(3)]
    module = tower()
    packed = encode(module, torch.cat(values), IMAGE_GRIDS)
    single = [encode(module, v, [grid]) for v, grid in zip(values, IMAGE_GRIDS, strict=True)]
    assert np.abs(packed - np.concatenate(single)).max() < EQUAL_TOLERANCE


def test_frames_of_a_film_are_independent_of_one_another() -> None:
    values = torch.from_numpy(expected()["vid_pixel_values"])
    ((steps, rows, columns),) = expected()["video_grid_thw"].tolist()
    module, frame = tower(), rows * columns
    single = [encode(module, values[i * frame : (i + 1) * frame], [(1, rows, columns)]) for i in range(steps)]
    assert np.abs(np.concatenate(single) - expected()["vid_embeds"]).max() < EMBEDS_TOLERANCE


@pytest.mark.parametrize("limit", [1, 48, 100, 10_000])
def test_groups_of_frames_do_not_change_the_rows(
    small: VisionTower, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = [(3, 4, 6), (1, 8, 2), (2, 6, 6)]
    values = torch.randn(sum(t * h * w for t, h, w in grid), 1536)
    whole = encode(small, values, grid)
    monkeypatch.setattr(vision, "_PATCHES_PER_PASS", limit)
    monkeypatch.setattr(vision, "_MLP_PATCHES", 7)
    assert np.abs(encode(small, values, grid) - whole).max() < EQUAL_TOLERANCE


def test_one_changed_pixel_changes_rows_of_its_frame_only() -> None:
    module, values = tower(), torch.from_numpy(expected()["vid_pixel_values"]).clone()
    steps, rows, columns = expected()["video_grid_thw"][0].tolist()
    values[rows * columns + 5, 700] += 1.0  # one value in the second temporal step
    difference = np.abs(encode(module, values, [(steps, rows, columns)]) - expected()["vid_embeds"]).max(1)
    units = rows * columns // 4
    assert difference[units : 2 * units].max() > 1e-3
    assert difference[:units].max() < EMBEDS_TOLERANCE and difference[2 * units :].max() < EMBEDS_TOLERANCE


def test_one_changed_pixel_of_the_raw_picture_changes_the_rows() -> None:
    rgb = expected()["img2_rgb"].copy()
    rgb[8, 20, 1] ^= 128
    values = torch.from_numpy(preprocess_image(rgb)[0])
    assert error(encode(tower(), values, [IMAGE_GRIDS[2]]), "img2_embeds") > 1e-2


@pytest.mark.parametrize("form", ["denominator", "key0"])
def test_one_changed_sink_changes_the_rows(form: str) -> None:
    module = tower(sink_form=form)
    before = encode(module, pixel_values(2), [IMAGE_GRIDS[2]])
    with torch.no_grad():
        module.blocks[3].attn.sinks[1] += 1.0
    assert np.abs(encode(module, pixel_values(2), [IMAGE_GRIDS[2]]) - before).max() > 1e-3


def test_parameters_are_the_tensors_of_the_checkpoint() -> None:
    with torch.device("meta"):
        module = VisionTower(config())
    found = {f"visual.{name}": tuple(value.shape) for name, value in module.state_dict().items()}
    assert found == {weight.name: weight.shape for weight in vision_weights(config())}
    assert found == {f"visual.{name}": tuple(value.shape) for name, value in weights().items()}


def test_released_sizes_give_the_released_parameter_count() -> None:
    kinds = (-1, 0, 0, 0, 0, 1, 1, 1, 1) * 3 + (-1,)
    sizes = {"depth": 28, "hidden_size": 1280, "intermediate_size": 4608, "num_heads": 32, "num_key_value_heads": 8}
    released = dataclasses.replace(config(), **sizes, out_hidden_size=4096, vit_window_attn_types=kinds)
    with torch.device("meta"):
        module = VisionTower(released)
    assert len(module.state_dict()) == 364
    assert sum(value.numel() for value in module.parameters()) == 728_594_432


def test_a_missing_sink_is_an_error_not_a_zero() -> None:
    incomplete = {name: value for name, value in weights().items() if name != "blocks.3.attn.sinks"}
    with pytest.raises(RuntimeError, match=r"blocks\.3\.attn\.sinks"):
        VisionTower(config()).load_state_dict(incomplete)


@pytest.mark.parametrize("form", ["denominator", "key0", "ignore"])
def test_gradients_reach_every_parameter_and_the_pixels(form: str) -> None:
    torch.manual_seed(0)
    module = VisionTower(small_config(sink_form=form))
    grid = [(1, 10, 6), (2, 4, 4)]  # 60 patches: more than a window, and no whole number of tiles
    values = torch.randn(92, 1536, requires_grad=True)
    module(values, grid).square().sum().backward()
    for name, value in module.named_parameters():
        if form == "ignore" and name.endswith("sinks"):
            assert value.grad is None
        else:
            assert value.grad is not None and torch.isfinite(value.grad).all() and value.grad.abs().max() > 0, name
    assert values.grad is not None and torch.isfinite(values.grad).all()


def test_gradient_of_the_pixels_is_the_slope_of_the_output(small: VisionTower) -> None:
    module = small.double()
    values = torch.randn(24, 1536, dtype=torch.float64, requires_grad=True)
    direction = torch.randn(24, 1536, dtype=torch.float64)
    module(values, [(1, 4, 6)]).sum().backward()
    step = 1e-4
    with torch.no_grad():
        slope = (module(values + step * direction, [(1, 4, 6)]) - module(values - step * direction, [(1, 4, 6)])).sum()
    assert values.grad is not None
    # Norms, rotary and softmax are float32 by design, which limits the finite difference to some 1e-3.
    assert float(slope) / (2 * step) == pytest.approx(float((values.grad * direction).sum()), rel=2e-2, abs=2e-2)


def test_grids_may_be_tensors_arrays_or_lists(small: VisionTower) -> None:
    values, grid = torch.randn(24, 1536), [[1, 4, 6]]
    rows = [encode(small, values, g) for g in (grid, torch.tensor(grid), np.array(grid), np.array(grid[0]))]
    assert all(np.array_equal(rows[0], other) for other in rows)
    assert rows[0].shape == (6, 24)


@pytest.mark.parametrize(
    ("patches", "grid"),
    [(24, [(1, 4, 4)]), (24, [(1, 3, 8)]), (24, [(0, 4, 6)]), (0, []), (24, [(1, 4, 6), (1, 2, 2)])],
)
def test_grids_that_do_not_fit_the_patches_are_refused(small: VisionTower, patches: int, grid: list) -> None:
    with pytest.raises(MediaError, match=r"expected|multiples"):
        small(torch.zeros(patches, 1536), grid)


def test_flat_patches_of_the_wrong_width_are_refused(small: VisionTower) -> None:
    with pytest.raises(MediaError, match=r"\[24, 1536\] were expected .* \[24, 768\]"):
        small(torch.zeros(24, 768), [(1, 4, 6)])
