"""The audio encoder against reference values, its padding and batching, and that errors in it show."""

import pytest
import torch

from mimo_cli.errors import MediaError
from mimo_cli.model.audio import AudioEncoder, pad_to_groups
from tests.support import audio_golden as golden


@pytest.fixture(scope="module")
def encoder():
    return golden.build_encoder()


def random_codes(count, seed=0):
    # 32 is the smallest code book.
    return torch.randint(0, 32, (count, 20), generator=torch.Generator().manual_seed(seed))


def groups_of(codes):
    return pad_to_groups(codes, 4).unflatten(0, (-1, 4))


def test_parameters_are_the_tensors_of_the_checkpoint(encoder):
    assert set(encoder.state_dict()) == set(golden.encoder_state())


def test_released_sizes_have_the_released_tensors():
    config = golden.encoder_config(
        input_local_dim=1024,
        input_local_attn_heads=16,
        input_local_head_dim=64,
        input_local_intermediate_size=4096,
        input_local_layers=6,
        out_hidden_size=4096,
        speech_vocab_size="1280",
    )
    with torch.device("meta"):
        state = AudioEncoder(config).state_dict()
    assert len(state) == 95
    assert sum(value.numel() for value in state.values()) == 261_127_168


@pytest.mark.parametrize("key", ["c01", "c02", "c06", "c07", "c08"])
def test_every_stage_from_reference_codes(encoder, key):
    groups = groups_of(golden.tensor(f"{key}/codes"))
    embedded = encoder.embed(groups)
    local = encoder.local(embedded)
    # The reference README's bounds.
    torch.testing.assert_close(embedded, golden.tensor(f"{key}/speech_sum"), atol=1e-6, rtol=0)
    torch.testing.assert_close(local, golden.tensor(f"{key}/local_out"), atol=2e-5, rtol=0)
    torch.testing.assert_close(encoder.project(local), golden.tensor(f"{key}/projected"), atol=1e-4, rtol=0)


@pytest.mark.parametrize("key", ["c01", "c02", "c06", "c07", "c08"])
@pytest.mark.parametrize("tables", ["", "_bf16_tables"])
def test_rows_from_reference_codes(encoder, key, tables):
    rows = encoder(golden.tensor(f"{key}/codes{tables}"))
    torch.testing.assert_close(rows, golden.tensor(f"{key}/projected{tables}"), atol=1e-4, rtol=0)


def test_rows_of_a_clip_of_two_segments(encoder):
    rows = encoder(golden.tensor("c05/codes"))
    assert len(rows) == golden.CLIPS["c05"]["tokens"]
    at = golden.expected()["c05/projected_at"]
    torch.testing.assert_close(rows[at], golden.tensor("c05/projected"), atol=1e-4, rtol=0)


def test_two_clips_of_a_request_are_encoded_one_by_one(encoder):
    rows = torch.cat([encoder(golden.tensor(f"{key}/codes")) for key in ("c02", "c01")])
    torch.testing.assert_close(rows, golden.tensor("request_two_clips/projected"), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("count", "rows"), [(1, 1), (3, 1), (4, 1), (5, 2), (83, 21), (2049, 513)])
def test_there_is_one_row_for_every_four_codes_begun(encoder, count, rows):
    assert encoder(random_codes(count)).shape == (rows, 96)


def test_a_clip_is_padded_by_repeating_its_last_code(encoder):
    codes = random_codes(6)
    repeated = torch.cat([codes, codes[-1:], codes[-1:]])
    assert torch.equal(encoder(codes), encoder(repeated))
    zeros = torch.cat([codes, torch.zeros(2, 20, dtype=torch.int64)])
    assert (encoder(codes) - encoder(zeros))[-1].abs().max() > 0.5


def test_groups_do_not_see_each_other(encoder):
    codes = random_codes(12)
    other = codes.clone()
    other[5] = (other[5] + 1) % 32
    changed = (encoder(codes) != encoder(other)).any(1)
    assert changed.tolist() == [False, True, False]


def test_a_batch_gives_the_rows_of_its_clips(encoder):
    batch = torch.stack([random_codes(10, seed) for seed in range(3)])
    rows = encoder(batch)
    assert rows.shape == (3, 3, 96)
    for clip, expected in zip(batch, rows, strict=True):
        torch.testing.assert_close(encoder(clip), expected, atol=2e-6, rtol=0)  # other shapes, other kernels


def test_rows_do_not_depend_on_where_a_pass_of_groups_ends(encoder):
    codes = random_codes(4 * 600)
    torch.testing.assert_close(encoder(codes)[510:516], encoder(codes[4 * 510 : 4 * 516]), atol=2e-6, rtol=0)


def test_the_local_transformer_is_bidirectional_unless_configured(encoder):
    causal = golden.build_encoder(input_full_attention=False)
    codes = golden.tensor("c02/codes")
    assert (causal(codes) - encoder(codes)).abs().max() > 1.0


@pytest.mark.parametrize(
    ("change", "least"),
    [({"rope_theta": 10000}, 1e-2), ({"rope_theta": 600000}, 1e-5), ({"input_local_layers": 2}, 0.1)],
)
def test_other_facts_give_other_rows(encoder, change, least):
    model = AudioEncoder(golden.encoder_config(**change))
    model.load_state_dict(golden.encoder_state(), strict=False)
    codes = golden.tensor("c02/codes")
    assert (model(codes) - encoder(codes)).abs().max() > least


def test_without_the_final_norm_it_is_not_there():
    model = AudioEncoder(golden.encoder_config(add_post_norm=False))
    assert not any(name.endswith("input_local_transformer.norm.weight") for name in model.state_dict())
    assert model(random_codes(4)).shape == (1, 96)


def test_a_projection_of_one_layer_is_one_matrix():
    model = AudioEncoder(golden.encoder_config(projection_layers=1))
    assert model.state_dict()["audio_encoder.projection.weight"].shape == (96, 256)
    assert model(random_codes(4)).shape == (1, 96)


def test_channels_beyond_those_configured_are_not_used():
    model = AudioEncoder(golden.encoder_config(audio_channels=8))
    model.load_state_dict(golden.encoder_state(), strict=False)
    codes = random_codes(8)
    assert torch.equal(model(codes), model(codes[:, :8]))


@pytest.mark.parametrize(
    "name",
    [
        "speech_embeddings.19.weight",
        "audio_encoder.input_local_transformer.layers.2.self_attn.k_proj.bias",
        "audio_encoder.projection.mlp.2.weight",
    ],
)
def test_one_changed_weight_changes_rows(name):
    model, codes = golden.build_encoder(), golden.tensor("c02/codes")
    before = model(codes)
    row = int(codes[0, 19]) if name.startswith("speech") else 0
    model.get_parameter(name)[row] += 1.0
    # A constant added to every key changes no softmax, but a bias before the rotation is none.
    assert (model(codes) - before).abs().max() > 1e-5


def test_one_changed_code_changes_its_row(encoder):
    codes = golden.tensor("c02/codes").clone()
    before = encoder(codes)
    codes[41, 19] = (codes[41, 19] + 1) % 32
    changed = (encoder(codes) - before).abs().amax(1) > 1e-6
    assert changed.nonzero().flatten().tolist() == [10]


def test_gradients_reach_embeddings_and_every_weight():
    model = golden.build_encoder().requires_grad_(True)
    codes = random_codes(12)
    model(codes).square().mean().backward()
    for name, value in model.named_parameters():
        assert value.grad is not None, name
        assert value.grad.any(), name
    used = set(codes[:, 0].tolist())
    touched = model.speech_embeddings[0].weight.grad.abs().sum(1).nonzero().flatten().tolist()
    assert set(touched) == used


def test_bfloat16_runs_and_stays_near(encoder):
    codes = golden.tensor("c02/codes")
    rows = golden.build_encoder(dtype=torch.bfloat16)(codes)
    assert rows.dtype == torch.bfloat16
    error = (rows.float() - encoder(codes)).norm() / encoder(codes).norm()
    assert error < 0.02  # 1 % measured; bfloat16 keeps 8 bits


@pytest.mark.parametrize("shape", [(0, 20), (4, 19), (20,), (1, 1, 4, 20)])
def test_codes_of_another_shape_are_refused(encoder, shape):
    with pytest.raises(MediaError, match=r"\[codes, 20\] expected"):
        encoder(torch.zeros(shape, dtype=torch.int64))


@pytest.mark.parametrize("code", [-1, 320])
def test_a_code_without_an_embedding_is_refused_by_number_and_channel(encoder, code):
    codes = random_codes(5)
    codes[3, 7] = code
    with pytest.raises(MediaError, match=rf"audio code {code} in channel 7 is outside its 320 embeddings"):
        encoder(codes)
