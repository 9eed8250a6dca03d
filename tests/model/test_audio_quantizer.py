"""Residual quantization: nearest code words stage by stage, always in float32."""

import torch

from mimo_cli.model.audio_quantizer import ResidualQuantizer


def quantizer(sizes=(16, 16, 8), dim=6, rounded=False, seed=0):
    torch.manual_seed(seed)
    return ResidualQuantizer(sizes, dim, rounded=rounded).requires_grad_(False)


def test_each_stage_names_the_code_word_nearest_to_the_remainder():
    model = quantizer()
    features = torch.randn(50, 6)
    codes, residual = model.encode(features), features.double()
    for stage in range(3):
        book = model.code_book(stage).double()
        nearest = torch.cdist(residual, book).argmin(1)
        assert torch.equal(codes[:, stage], nearest)
        residual = residual - book[nearest]


def test_parameter_names_are_the_checkpoints():
    assert list(quantizer().state_dict()) == [f"vq.layers.{stage}._codebook.embed" for stage in range(3)]


def test_codes_of_a_batch_are_those_of_its_rows():
    model, features = quantizer(), torch.randn(4, 7, 6)
    assert torch.equal(model.encode(features)[2], model.encode(features[2]))
    assert model.encode(features).shape == (4, 7, 3)


def test_ties_go_to_the_lowest_code():
    model = quantizer()
    book = model.vq.layers[0]._codebook.embed
    book[9] = book[4]
    assert model.encode(book[9:10])[0, 0] == 4


def test_decoding_sums_code_words_of_all_or_the_first_stages():
    model = quantizer()
    codes = torch.tensor([[3, 1, 7]])
    words = [model.code_book(stage)[code] for stage, code in enumerate(codes[0])]
    torch.testing.assert_close(model.decode(codes)[0], words[0] + words[1] + words[2])
    torch.testing.assert_close(model.decode(codes[:, :2])[0], words[0] + words[1])


def test_quantizing_what_was_decoded_loses_little_with_more_stages():
    model, features = quantizer((64, 64, 64)), torch.randn(200, 6)
    errors = [(model.decode(model.encode(features)[:, :n]) - features).norm() for n in (1, 2, 3)]
    assert errors[0] > errors[1] > errors[2]


def test_code_books_stay_float32_when_the_model_is_cast():
    model = quantizer()
    before = model.vq.layers[0]._codebook.embed.clone()
    model.to(torch.bfloat16)
    after = model.vq.layers[0]._codebook.embed
    assert after.dtype == torch.float32
    assert torch.equal(before, after)


def test_rounding_reads_bfloat16_values_and_keeps_what_is_stored():
    model = quantizer(rounded=True)
    stored = model.vq.layers[0]._codebook.embed
    assert torch.equal(model.code_book(0), stored.bfloat16().float())
    assert not torch.equal(model.code_book(0), stored)


def test_distances_are_float32_under_autocast():
    model, features = quantizer((256, 256, 256), 32), torch.randn(300, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(model.encode(features), quantizer((256, 256, 256), 32).encode(features))


def test_gradients_reach_the_code_books_through_decoding():
    model = quantizer().requires_grad_(True)
    model.decode(torch.tensor([[3, 1, 7]])).square().sum().backward()
    touched = model.vq.layers[1]._codebook.embed.grad.abs().sum(1).nonzero().flatten()
    assert touched.tolist() == [1]
