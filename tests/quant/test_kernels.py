"""The native kernels against float64, in every format and instruction set this processor has.

A token's answer must be the same bits however many others, threads, calls or rows it shares the work with.
"""

import functools

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from mimo_cli.quant.kernels import ExpertPairs, Kernels, Precision, load_kernels, missing_reason
from mimo_cli.quant.packed import PackedFormat, PackedShape
from tests.support.packed_weights import KINDS, RandomMatrix, packed, random_matrix

if missing_reason() is not None:
    pytest.skip(f"{missing_reason()}", allow_module_level=True)


def opens(isa: str) -> bool:
    try:
        Kernels(isa, 1)
    except ValueError:
        return False
    return True


ISAS = [isa for isa in ("avx512", "avx2") if opens(isa)]
INTEGERS = ("int4", "mxfp4", "int8")
SHAPES = [(16, 128), (1, 1), (33, 200), (100, 33), (40, 1000)]
TOKENS = (1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 64)


def tolerance(kind: PackedFormat, precision: Precision) -> float:
    """Of the relative error in the Euclidean norm.

    8-bit activations round by 1/254 of the largest of 128 values, about a hundredth of a typical one; 16-bit fixed
    point by 1/256 of that, 24 bits by less than float32's own sums; bfloat16 by 2^-9 of each value.
    """
    if kind in INTEGERS:
        return 2.5e-2 if precision == "int8" else 1e-4
    return 4e-6 * 4 if precision == "exact" else 6e-3


@functools.cache
def on(isa: str, threads: int = 1) -> Kernels:
    """Return kernels kept for all tests: threads that sleep cost nothing, starting them does."""
    return Kernels(isa, threads)


def tokens_like(count: int, cols: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng((seed, cols)).standard_normal((count, cols)).astype(np.float32))


def error(found: Tensor, expected: NDArray[np.float64]) -> float:
    return float(np.linalg.norm(found.numpy() - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("precision", ["int8", "exact", "bfloat16"])
@pytest.mark.parametrize(("kind", "group"), KINDS)
@pytest.mark.parametrize("isa", ISAS)
def test_a_product_is_that_of_float64(isa: str, kind: PackedFormat, group: int, precision: Precision) -> None:
    for rows, cols in SHAPES:
        shape, matrix = PackedShape(kind, group, rows, cols), random_matrix(kind, group, rows, cols)
        x = tokens_like(5, cols)
        expected = x.double().numpy() @ matrix.weights.T
        if np.linalg.norm(expected):
            found = on(isa).linear(shape, packed(on(isa), shape, matrix), x, precision)
            assert error(found, expected) < tolerance(kind, precision), (rows, cols)


@pytest.mark.parametrize("precision", ["int8", "exact"])
@pytest.mark.parametrize(("kind", "group"), KINDS)
@pytest.mark.parametrize("isa", ISAS)
def test_a_token_does_not_depend_on_the_batch_or_the_threads(
    isa: str, kind: PackedFormat, group: int, precision: Precision
) -> None:
    shape, matrix = PackedShape(kind, group, 200, 300), random_matrix(kind, group, 200, 300)
    data, x = packed(on(isa), shape, matrix), tokens_like(64, 300)
    alone = torch.cat([on(isa).linear(shape, data, x[i : i + 1], precision) for i in range(64)])
    for threads in (1, 2, 3):
        for count in TOKENS:
            assert torch.equal(on(isa, threads).linear(shape, data, x[:count], precision), alone[:count]), (
                threads,
                count,
            )


def test_both_instruction_sets_agree_where_sums_are_integers() -> None:
    if len(ISAS) < 2:
        pytest.skip("one instruction set only")
    for kind, group in KINDS:
        shape, matrix = PackedShape(kind, group, 33, 384), random_matrix(kind, group, 33, 384)
        x = tokens_like(3, 384)
        one, two = (on(isa).linear(shape, packed(on(isa), shape, matrix), x, "exact") for isa in ISAS)
        assert torch.allclose(one, two, rtol=1e-4, atol=1e-5 * float(one.abs().max()))


@pytest.mark.parametrize("precision", ["int8", "exact", "bfloat16"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(("kind", "group"), KINDS)
@pytest.mark.parametrize("isa", ISAS)
def test_a_broken_activation_never_comes_out_as_a_finite_number(
    isa: str, kind: PackedFormat, group: int, bad: float, precision: Precision
) -> None:
    shape, matrix = PackedShape(kind, group, 32, 256), random_matrix(kind, group, 32, 256)
    x = tokens_like(3, 256)
    expected = on(isa).linear(shape, packed(on(isa), shape, matrix), x, precision)
    x[1, 200] = bad
    found = on(isa).linear(shape, packed(on(isa), shape, matrix), x, precision)
    touched = torch.from_numpy(matrix.weights[:, 200] != 0)
    assert not found[1][touched].isfinite().any()
    assert torch.equal(found[[0, 2]], expected[[0, 2]])


@pytest.mark.parametrize("size", [1e-44, 1e-39, 1e-30, 1e30, 1e33])
@pytest.mark.parametrize(("kind", "group"), KINDS)
@pytest.mark.parametrize("isa", ISAS)
def test_tiny_and_huge_activations_keep_their_size(isa: str, kind: PackedFormat, group: int, size: float) -> None:
    shape, matrix = PackedShape(kind, group, 32, 256), random_matrix(kind, group, 32, 256)
    x = tokens_like(2, 256) * size
    found = on(isa).linear(shape, packed(on(isa), shape, matrix), x, "exact")
    expected = x.double().numpy() @ matrix.weights.T
    assert found.isfinite().all()
    if size > 1e-37:
        assert error(found, expected) < tolerance(kind, "exact")
    else:  # subnormal in float32: they may come out as zero, never larger than they are
        assert float(found.abs().max()) <= 1.01 * float(np.abs(expected).max()) + 1e-42


@pytest.mark.parametrize("isa", ISAS)
def test_extreme_scales_are_exact(isa: str) -> None:
    x = torch.zeros(1, 128)
    x[0, 0] = 1.0
    for byte in (0, 1, 2, 127, 220, 250, 252):  # e8m0: 2^-127 is subnormal in float32; 6 * 2^125 is near its end
        shape, codes = PackedShape("mxfp4", 32, 16, 128), torch.full((16, 128), 7, dtype=torch.uint8)
        matrix = RandomMatrix(codes, torch.full((16, 4), byte, dtype=torch.uint8), np.empty(0))
        found = on(isa).linear(shape, packed(on(isa), shape, matrix), x, "exact")
        assert found.flatten().double().tolist() == pytest.approx([6 * 2.0 ** (byte - 127)] * 16, rel=1e-4)
    for scale in (6e-8, 6e-5, 65504.0):  # float16: its smallest subnormal, the last subnormal binade, its largest
        shape = PackedShape("int4", 64, 16, 128)
        scales = torch.full((16, 2), scale, dtype=torch.float16)
        matrix = RandomMatrix(torch.full((16, 128), -8, dtype=torch.int8), scales, np.empty(0))
        found = on(isa).linear(shape, packed(on(isa), shape, matrix), x, "exact")
        assert found.flatten().tolist() == pytest.approx([-8 * float(scales[0, 0])] * 16, rel=1e-4)


@pytest.mark.parametrize("isa", ISAS)
def test_every_fp8_code_is_exact(isa: str) -> None:
    codes = torch.arange(256, dtype=torch.uint8).view(2, 128)
    shape, scales = PackedShape("fp8", 128, 2, 128), torch.ones(1, 1)
    data = packed(on(isa), shape, RandomMatrix(codes, scales, np.empty(0)))
    expected = codes.view(torch.float8_e4m3fn).float()
    for column in range(127):  # column 127 is NaN in both rows
        one_hot = torch.zeros(1, 128)
        one_hot[0, column] = 1.0
        found = on(isa).linear(shape, data, one_hot, "bfloat16")
        assert found.isnan().all()  # 0 x NaN in column 127, as IEEE has it
    clean = codes.clone()
    clean[:, 127] = 0
    data = packed(on(isa), shape, RandomMatrix(clean, scales, np.empty(0)))
    found = on(isa).linear(shape, data, torch.eye(128), "bfloat16")
    assert torch.equal(found[:127], expected.T[:127])


class Layer:
    """One MoE layer of random experts and what float64 makes of it."""

    def __init__(self, kernels: Kernels, kind: PackedFormat, group: int, hidden: int, width: int, experts: int) -> None:
        self.up_shape = PackedShape(kind, group, width, hidden, 2)
        down_shape = PackedShape(kind, group, hidden, width)
        self.weights, self.streams = [], []
        for e in range(experts):
            gate, up = (random_matrix(kind, group, width, hidden, 10 * e + j) for j in range(2))
            down = random_matrix(kind, group, hidden, width, 10 * e + 2)
            self.weights.append((gate.weights, up.weights, down.weights))
            self.streams.append((packed(kernels, self.up_shape, gate, up), packed(kernels, down_shape, down)))

    def run(
        self, kernels: Kernels, x: Tensor, ids: Tensor, weights: Tensor, precision: Precision, cuts: int = 1
    ) -> Tensor:
        """Compute ids [T, A] in `cuts` calls, each with a share of the experts."""
        out = torch.zeros_like(x)
        tokens = torch.arange(len(x), dtype=torch.int32)[:, None].expand_as(ids)
        for part in np.array_split(np.arange(len(self.streams)), cuts):
            chosen = torch.isin(ids, torch.from_numpy(part))
            pairs = ExpertPairs(tokens[chosen], (ids[chosen] - int(part[0])).int(), weights[chosen])
            gate_up, down = ([self.streams[e][k].data_ptr() for e in part] for k in (0, 1))
            kernels.moe(self.up_shape, gate_up, down, pairs, x, out, precision)
        return out

    def expected(self, x: Tensor, ids: Tensor, weights: Tensor) -> NDArray[np.float64]:
        out = np.zeros(x.shape)
        for t in range(len(x)):
            for e, weight in zip(ids[t].tolist(), weights[t].tolist(), strict=True):
                gate, up, down = self.weights[e]
                g = gate @ x[t].double().numpy()
                out[t] += weight * (down @ (g / (1 + np.exp(-g)) * (up @ x[t].double().numpy())))
        return out


def routing(tokens: int, experts: int, active: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    ids = np.stack([rng.permutation(experts)[:active] for _ in range(tokens)])
    return torch.from_numpy(ids), torch.from_numpy(rng.random((tokens, active), dtype=np.float32))


@pytest.mark.parametrize("precision", ["int8", "exact"])
@pytest.mark.parametrize(("kind", "group"), KINDS)
@pytest.mark.parametrize("isa", ISAS)
def test_a_layer_of_experts_is_that_of_float64(isa: str, kind: PackedFormat, group: int, precision: Precision) -> None:
    layer = Layer(on(isa), kind, group, 200, 72, 7)
    for tokens in (1, 4, 33):
        x, (ids, weights) = tokens_like(tokens, 200), routing(tokens, 6, 3)  # expert 6 stays without tokens
        found = layer.run(on(isa, 2), x, ids, weights, precision)
        # three roundings of activations meet: the input's twice (gate and up) and the hidden's
        assert error(found, layer.expected(x, ids, weights)) < 2 * tolerance(kind, precision), tokens


@pytest.mark.parametrize(("kind", "group"), KINDS)
@pytest.mark.parametrize("isa", ISAS)
def test_cuts_threads_and_neighbours_do_not_change_a_layer(isa: str, kind: PackedFormat, group: int) -> None:
    layer, x, (ids, weights) = Layer(on(isa), kind, group, 130, 40, 6), tokens_like(40, 130), routing(40, 6, 3)
    whole = layer.run(on(isa), x, ids, weights, "exact")
    for threads, cuts in ((1, 2), (2, 1), (2, 3), (3, 6)):
        assert torch.equal(layer.run(on(isa, threads), x, ids, weights, "exact", cuts), whole)
    for t in (0, 17, 39):
        alone = layer.run(on(isa, 2), x[t : t + 1], ids[t : t + 1], weights[t : t + 1], "exact")
        assert torch.equal(alone[0], whole[t])


@pytest.mark.parametrize("isa", ISAS)
def test_an_expert_named_twice_counts_twice(isa: str) -> None:
    layer, x = Layer(on(isa), "int4", 64, 128, 32, 2), tokens_like(1, 128)
    twice = layer.run(on(isa), x, torch.tensor([[1, 1]]), torch.tensor([[0.25, 0.5]]), "exact")
    once = layer.run(on(isa), x, torch.tensor([[1]]), torch.tensor([[0.75]]), "exact")
    assert torch.allclose(twice, once, rtol=1e-6)  # one more rounding


def test_no_tokens_are_no_work() -> None:
    shape, matrix = PackedShape("int4", 32, 16, 128), random_matrix("int4", 32, 16, 128)
    kernels = Kernels("auto", 1)
    assert kernels.linear(shape, packed(kernels, shape, matrix), torch.empty(0, 128), "int8").shape == (0, 16)
    assert kernels.calls == 0


def test_tensors_of_another_kind_are_refused() -> None:
    shape, kernels = PackedShape("int4", 32, 16, 128), on(ISAS[0])
    data = packed(kernels, shape, random_matrix("int4", 32, 16, 128))
    with pytest.raises(ValueError, match="input"):
        kernels.linear(shape, data, torch.zeros(1, 129), "int8")
    with pytest.raises(ValueError, match="input"):
        kernels.linear(shape, data, torch.zeros(1, 128, dtype=torch.float64), "int8")
    with pytest.raises(ValueError, match="packed stream"):
        kernels.linear(shape, data[:-1], torch.zeros(1, 128), "int8")
    with pytest.raises(ValueError, match="codes"):
        kernels.pack(shape, data, 0, torch.zeros(16, 64, dtype=torch.int8), torch.zeros(16, 4, dtype=torch.float16))


def test_the_variable_for_comparisons_turns_the_kernels_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIMO_ISA", "none")
    assert missing_reason() == "MIMO_ISA is `none`"
    assert load_kernels() is None
    monkeypatch.setenv("MIMO_ISA", "mmx")
    assert "`mmx`" in str(missing_reason())


def test_a_probe_reads_every_byte() -> None:
    on(ISAS[0]).read_probe(torch.zeros(1 << 16, dtype=torch.uint8), 1)
