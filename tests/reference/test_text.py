"""The reference network against numbers that others computed, and by hand where the formula is short enough."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from tests.reference.packed import unpack
from tests.reference.sets import FILES, reference_sets
from tests.reference.storage import read_file
from tests.reference.text import TextNetwork, Trace, attend, rotate, route
from tests.reference.text_values import dequant_checks, sequence_values
from tests.reference.text_weights import Heads, TextWeights, deal_out

LOGITS_TOLERANCE = 1e-4  # float32 against float64; logits reach 6, and the seen difference is 1.2e-5
INSIDE_TOLERANCE = 1e-5  # single steps of the first two layers


@cache
def network(name: str) -> TextNetwork:
    return TextNetwork(TextWeights(reference_sets() / name))


def test_the_network_agrees_with_values_computed_elsewhere() -> None:
    """The MXFP4 set: a global dense layer and a sliding one with experts, by the public class of the architecture."""
    with np.load(reference_sets() / "text_mxfp4" / "expected.npz") as arrays:
        wanted = dict(arrays)
    found, _ = sequence_values(
        network("text_mxfp4"),
        wanted["seq0_input_ids"],
        rows=wanted["seq0_rows"].tolist(),
        logit_rows=wanted["seq0_logit_rows"].tolist(),
        inside=True,
    )
    assert {f"seq0_{key}" for key in found} == set(wanted)
    for key, array in found.items():
        tolerance = INSIDE_TOLERANCE if key.startswith("layer") else LOGITS_TOLERANCE
        assert array.shape == wanted[f"seq0_{key}"].shape and array.dtype == wanted[f"seq0_{key}"].dtype, key
        assert np.abs(array - wanted[f"seq0_{key}"]).max() <= tolerance, key


def test_dequantised_matrices_are_those_of_another_reader() -> None:
    wanted = json.loads((FILES / "text_mxfp4" / "dequant_checks.json").read_text())
    found = dequant_checks(network("text_mxfp4").weights)
    assert set(wanted) <= set(found) and len(wanted) == 15
    for name, check in wanted.items():
        assert [found[name][key] for key in ("shape", "first", "last")] == [
            check[key] for key in ("shape", "first", "last")
        ]
        assert found[name]["sum"] == pytest.approx(check["sum"], abs=1e-9)
        assert found[name]["abs_sum"] == pytest.approx(check["abs_sum"], rel=1e-12)


def test_an_mtp_module_agrees_with_values_computed_elsewhere(tmp_path: Path) -> None:
    """One module of another checkpoint: embedding first, state behind the last norm second, FP8, 17 rows."""
    unpack(FILES / "blocks" / "mtp.safetensors.xz", tmp_path / "mtp.safetensors")
    stored = read_file(tmp_path / "mtp.safetensors")
    module = network_of_one_module(stored)
    rows = module.draft_states(0, np.arange(17), stored["states"].numbers().astype(np.float64))
    found = rows @ stored["head"].numbers().T
    assert np.abs(found - stored["logits"].numbers()).max() < LOGITS_TOLERANCE


def network_of_one_module(stored: dict) -> TextNetwork:
    """A network with nothing but an MTP module, whose vocabulary is the rows it is to read."""
    source = network("text").weights
    weights = TextWeights.__new__(TextWeights)
    weights.config, weights.index = source.config, source.index
    weights.stored = stored | {"model.embed_tokens.weight": stored["embeddings"]}
    return TextNetwork(weights)


def test_the_generated_set_is_clear_of_near_ties() -> None:
    """A near tie would make tests of the product depend on its order of summation."""
    with np.load(reference_sets() / "text" / "expected.npz") as arrays:
        for number in range(3):
            trace = Trace()
            network("text").states(arrays[f"seq{number}_input_ids"], trace)
            assert min(margin.min() for margin in trace.margins) > 5e-5  # float32 changes scores by 3e-6
            last = np.sort(arrays[f"seq{number}_logits"][-1])
            assert last[-1] - last[-2] > 0.02


def test_every_expert_of_the_generated_set_is_used() -> None:
    """Nothing would notice a wrong number in an expert that no token chooses."""
    with np.load(reference_sets() / "text" / "expected.npz") as arrays:
        choices = arrays["seq2_router_idx"]
    uses = np.stack([np.bincount(layer.ravel(), minlength=16) for layer in choices])
    assert uses.shape == (6, 16) and uses.min() >= 3


def test_a_window_ends_after_so_many_tokens_before_the_own() -> None:
    zero, values = np.zeros((140, 1, 8)), np.eye(140)[:, None]
    weights = attend(zero, zero, values, window=128, sinks=None)[:, 0]
    assert np.allclose(weights[139], np.where(np.arange(140) >= 11, 1 / 129, 0))
    assert np.allclose(weights[128], np.where(np.arange(140) <= 128, 1 / 129, 0))
    assert np.allclose(attend(zero, zero, values, window=None, sinks=None)[139, 0], 1 / 140)


def test_a_sink_takes_its_part_of_the_sum_and_gives_nothing() -> None:
    q, k, v = (np.random.default_rng(0).standard_normal((5, heads, 4)) for heads in (2, 1, 1))
    sinks = np.array([0.7, -30.0])
    plain, with_sinks = (attend(q, k, v, window=3, sinks=s) for s in (None, sinks))
    exponentials = np.exp(q[4, 0] @ k[1:, 0].T / 2)
    assert np.allclose(with_sinks[4, 0], exponentials @ v[1:, 0] / (exponentials.sum() + np.exp(0.7)))
    assert np.allclose(with_sinks[:, 1], plain[:, 1])


def test_pairs_of_the_rotation_are_half_the_rotary_width_apart() -> None:
    x = np.zeros((3, 1, 10))
    x[:, 0, 1], x[:, 0, 9] = 1.0, 5.0
    turned = rotate(x, np.array([0, 1, 7]), theta=100.0, rotary=8)
    angles = np.array([0, 1, 7]) * 100 ** (-2 / 8)
    assert np.allclose(turned[:, 0, 1], np.cos(angles)) and np.allclose(turned[:, 0, 5], np.sin(angles))
    assert np.all(turned[:, 0, 9] == 5.0) and np.allclose(turned[:, 0, [0, 2, 3, 4, 6, 7, 8]], 0)


def test_the_correction_bias_chooses_and_does_not_weigh() -> None:
    config = {"num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "norm_topk_prob": True}
    logits, bias = np.log([[1.0, 3.0, 9.0, 1.0]]), np.array([0.9, 0.0, 0.0, 0.0])  # scores 0.5, 0.75, 0.9, 0.5
    ids, weights, margin = route(logits, bias, config)
    assert ids.tolist() == [[0, 2]] and np.allclose(weights, [[0.5 / 1.4, 0.9 / 1.4]])
    assert margin == pytest.approx([0.15])
    _, doubled, _ = route(logits, bias, config | {"norm_topk_prob": False, "routed_scaling_factor": 2.0})
    assert np.allclose(doubled, [[1.0, 1.8]])


def test_groups_are_judged_by_their_two_best_experts() -> None:
    config = {"num_experts_per_tok": 2, "n_group": 2, "topk_group": 1, "norm_topk_prob": True}
    scores = np.array([[0.9, 0.1, 0.1, 0.7, 0.6, 0.1]])  # 1.0 against 1.3
    ids, _, _ = route(np.log(scores / (1 - scores)), np.zeros(6), config)
    assert ids.tolist() == [[3, 4]]


def test_chunks_are_dealt_out_head_by_head() -> None:
    heads = Heads(num_heads=4, num_kv_heads=2, head_dim=1, v_head_dim=1, rope_theta=1.0)
    fused = np.array([0, 1, 10, 20, 2, 3, 11, 21])[:, None]  # queries 0-3, keys 10-11, values 20-21
    q, k, v = (part.ravel().tolist() for part in deal_out(fused, heads, 2))
    assert (q, k, v) == ([0, 1, 2, 3], [10, 11], [20, 21])
