"""LayerRun refuses what native code would misread: every number it is told comes from a checked tensor."""

import pytest
import torch

from mimo_cli.quant.kernels import FEW_TOKENS, Heads, Norm, Product
from mimo_cli.quant.layer_run import AttentionPart, DensePart, ExpertSlots, LayerRun, Place, RoutedPart
from mimo_cli.quant.packed import PackedShape
from tests.support.kernels import kernels, needs_kernels

pytestmark = needs_kernels
HIDDEN, WIDTH, EXPERTS = 32, 48, 4
HEADS = Heads(2, 1, 16, 8)


def norm(size: int = HIDDEN, dtype: torch.dtype = torch.float32) -> Norm:
    return Norm(torch.ones(size, dtype=dtype), 1e-5)


def product(rows: int, cols: int, streams: int = 1) -> Product:
    shape = PackedShape("bf16", 128, rows, cols, streams)
    return Product(shape, torch.zeros(shape.nbytes, dtype=torch.uint8), "exact")


def attention(**changes: object) -> AttentionPart:
    part = AttentionPart(
        norms=(norm(), norm()),
        products=(product(HEADS.columns, HIDDEN), product(HIDDEN, 16)),
        heads=HEADS,
        half=4,
        turn=0,
        value_scale=1.0,
        window=None,
        sinks=None,
    )
    return part._replace(**changes)


def dense(**changes: object) -> DensePart:
    part = DensePart(product(WIDTH, HIDDEN), product(WIDTH, HIDDEN), product(HIDDEN, WIDTH))
    return part._replace(**changes)


def routed(**changes: object) -> RoutedPart:
    up = PackedShape("bf16", 128, WIDTH, HIDDEN, 2)
    slots = ExpertSlots(torch.full((EXPERTS,), -1, dtype=torch.int32), 0, 1 << 16, up, "exact")
    return RoutedPart(torch.zeros(EXPERTS, HIDDEN), torch.zeros(EXPERTS), 2, True, 1.0, slots)._replace(**changes)


def run_of(*parts: DensePart | RoutedPart) -> LayerRun:
    run = LayerRun(kernels(), norm())
    for part in parts:
        run.add(attention(), part)
    return run


def places(count: int, tokens: int) -> list[Place]:
    return [Place(torch.zeros(1, 1, 3 + tokens, 16), torch.zeros(1, 1, 3 + tokens, 8)) for _ in range(count)]


ANGLES = tuple(torch.zeros(2, 4) for _ in range(4))


@pytest.mark.parametrize(
    ("part", "feed_forward"),
    [
        (attention(norms=(norm(16), norm())), dense()),
        (attention(norms=(norm(), norm(dtype=torch.bfloat16))), dense()),
        (attention(products=(product(HEADS.columns + 16, HIDDEN), product(HIDDEN, 16))), dense()),
        (attention(products=(product(HEADS.columns, HIDDEN), product(HIDDEN, 32))), dense()),
        (attention(half=9), dense()),
        (attention(turn=2), dense()),
        (attention(sinks=torch.zeros(3)), dense()),
        (attention(), dense(up=product(WIDTH + 16, HIDDEN))),
        (attention(), dense(down=product(HIDDEN, WIDTH, streams=2))),
        (attention(), routed(weight=torch.zeros(EXPERTS, HIDDEN + 1))),
        (attention(), routed(bias=torch.zeros(EXPERTS, dtype=torch.float64))),
        (attention(), routed(active=EXPERTS + 1)),
        (attention(), routed(experts=routed().experts._replace(numbers=torch.zeros(EXPERTS, dtype=torch.int64)))),
        (attention(), routed(experts=routed().experts._replace(up_shape=PackedShape("bf16", 128, WIDTH, HIDDEN)))),
    ],
)
def test_parts_that_do_not_fit_are_refused(part: AttentionPart, feed_forward: DensePart | RoutedPart) -> None:
    run = LayerRun(kernels(), norm())
    with pytest.raises(ValueError):
        run.add(part, feed_forward)
    assert len(run) == 0


def test_layers_that_choose_different_numbers_of_experts_are_refused() -> None:
    run = run_of(routed(active=2))
    with pytest.raises(ValueError, match="in another layer"):
        run.add(attention(), routed(active=3))


@pytest.mark.parametrize("tokens", [0, FEW_TOKENS + 1])
def test_only_a_few_tokens_are_run(tokens: int) -> None:
    rows = torch.zeros(tokens, HIDDEN)
    with pytest.raises(ValueError, match="tokens"):
        run_of(dense()).run(0, rows, rows.clone(), ANGLES, places(1, tokens))


def test_rows_of_another_dtype_or_too_few_places_are_refused() -> None:
    run, rows = run_of(dense(), dense()), torch.zeros(2, HIDDEN)
    with pytest.raises(ValueError, match="rows"):
        run.run(0, rows.bfloat16(), rows.clone(), ANGLES, places(2, 2))
    with pytest.raises(ValueError, match="1 of 2 layers"):
        run.run(0, rows, rows.clone(), ANGLES, places(1, 2))
    with pytest.raises(ValueError, match="angles"):
        run.run(0, rows, rows.clone(), (*ANGLES[:3], torch.zeros(2, 4).double()), places(2, 2))


def test_products_and_their_bytes_are_counted_up_to_where_it_stopped() -> None:
    run, rows = run_of(dense(), routed(), dense()), torch.randn(2, HIDDEN)
    before = kernels().use
    assert run.run(0, rows, torch.empty_like(rows), ANGLES, places(3, 2)) == 1  # no expert has a slot
    use = kernels().use.since(before)
    attention_bytes = sum(one.shape.nbytes for one in attention().products)
    assert use.calls == 5 + 2
    assert use.weight_bytes == 2 * attention_bytes + sum(one.shape.nbytes for one in dense())
    ids, weights = run.chosen(1, 2)
    assert ids.tolist() == [[0, 1], [0, 1]] and torch.allclose(weights, torch.full((2, 2), 0.5))  # equals: the lower id
