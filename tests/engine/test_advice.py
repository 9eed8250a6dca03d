"""Advice is tried in the same arithmetic, the cheapest first, and only what is worth it."""

from dataclasses import replace
from itertools import pairwise

from mimo_cli.checkpoint.release_shapes import release_config
from mimo_cli.engine.advice import WORTH_FACTOR, Scenario, helpful_changes, judge
from mimo_cli.engine.model_sizes import model_sizes
from mimo_cli.engine.speed_model import Rates, Span, forecast_speed

GB = 10**9
CONFIG = release_config("v2.5")


def scenario(ram_gb: float, experts: str = "as released", dense: str = "keep", disk_gbps: float = 1.0) -> Scenario:
    return Scenario(
        sizes=model_sizes(CONFIG, None, experts, dense),  # type: ignore[arg-type]
        resize=lambda experts, dense: model_sizes(CONFIG, None, experts, dense),
        rates=Rates(Span(40, 50), Span(disk_gbps, disk_gbps)),
        ram_bytes=int(ram_gb * GB),
        context_tokens=32_768,
    )


def test_smaller_experts_are_the_cheapest_help_for_the_release() -> None:
    changes = helpful_changes(scenario(24))
    assert changes[0].what.startswith("experts in int4 instead of fp8") and changes[0].is_lossy
    assert changes[0].decode_factor is not None and changes[0].decode_factor > 1.5


def test_every_change_is_worth_it_and_more_of_a_kind_gives_more() -> None:
    changes = helpful_changes(scenario(24))
    assert all(change.decode_factor and change.decode_factor >= WORTH_FACTOR for change in changes)
    ram = [change for change in changes if change.what.endswith("more RAM")]
    assert len(ram) >= 2
    assert all(b.decode_tps.middle > a.decode_tps.middle for a, b in pairwise(ram))


def test_a_change_does_what_it_says() -> None:
    before = scenario(24, "int4", "int8")
    change = next(one for one in helpful_changes(before) if one.what == "64 GB more RAM")
    after = replace(before, ram_bytes=before.ram_bytes + 64 * GB)
    assert change.decode_tps == forecast_speed(after.place(), after.rates).decode_tps


def test_a_fast_disk_is_not_told_to_be_faster() -> None:
    assert any("a disk of" in change.what for change in helpful_changes(scenario(24, "int4", "int8")))
    assert not any("a disk of" in change.what for change in helpful_changes(scenario(24, disk_gbps=7.0)))


def test_where_nothing_fits_the_change_that_makes_it_fit_is_named() -> None:
    changes = helpful_changes(scenario(9))
    assert changes and all(change.decode_factor is None for change in changes)
    assert {"8 GB more RAM"} <= {change.what for change in changes}


def test_everything_in_memory_needs_no_advice_about_memory() -> None:
    assert not [change for change in helpful_changes(scenario(400)) if "RAM" in change.what]


def test_the_verdict_follows_the_speed() -> None:
    slow, fits_not = scenario(24), scenario(5)
    assert judge(slow.place(), forecast_speed(slow.place(), slow.rates)) == "runs slowly"
    assert judge(fits_not.place(), None) == "does not fit"
    fast = replace(scenario(400, "int4", "int8"), rates=Rates(Span(400, 500), Span(5, 5), layer_s=Span(1e-4, 1e-4)))
    assert judge(fast.place(), forecast_speed(fast.place(), fast.rates)) == "runs well"
