"""One value of a JSON configuration: its type, its bounds, and errors that name key and file."""

import json
from typing import Any

import pytest

from mimo_cli.checkpoint.fields import Fields
from mimo_cli.errors import CheckpointError


def fields(**values: Any) -> Fields:
    return Fields(values, "config.json: part")


@pytest.mark.parametrize("method", ["integer", "number", "flag", "text", "integers"])
def test_a_missing_key_and_a_null_are_the_same(method: str) -> None:
    for empty in (fields(), fields(key=None)):
        with pytest.raises(CheckpointError, match=r"config\.json: part has no `key`"):
            getattr(empty, method)("key")
        assert getattr(empty, method)("key", (7,) if method == "integers" else 7)
        assert not empty.has("key") and empty.optional_integer("key") is None


@pytest.mark.parametrize(("value", "number"), [(3, 3), ("12", 12), (0, 0), ("-0", 0)])
def test_whole_numbers_may_stand_in_strings(value: Any, number: int) -> None:
    assert fields(key=value).integer("key") == number


@pytest.mark.parametrize("value", [1.5, True, "x", "", [1], {}, "1" * 5000])
def test_what_is_no_whole_number_is_refused(value: Any) -> None:
    with pytest.raises(CheckpointError, match="part: `key` must be"):
        fields(key=value).integer("key")


@pytest.mark.parametrize(("value", "bound"), [(1, "at least 2"), (-5, "at least 2"), (10, "at most 9")])
def test_bounds_are_told(value: int, bound: str) -> None:
    with pytest.raises(CheckpointError, match=f"must be {bound}, found {value}"):
        fields(key=value).integer("key", minimum=2, maximum=9)


def test_absurd_sizes_are_refused_without_being_asked() -> None:
    with pytest.raises(CheckpointError, match="must be at most"):
        fields(key=10**30).integer("key")
    with pytest.raises(CheckpointError, match="list of whole numbers"):
        fields(key=[10**30]).integers("key")


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 400])
def test_numbers_that_are_not_finite_are_refused(text: str) -> None:
    with pytest.raises(CheckpointError, match="finite"):
        fields(key=json.loads(text)).number("key")


def test_numbers_become_floats() -> None:
    assert fields(key=10_000_000).number("key") == 1e7 and fields(key=0.334).number("key") == 0.334


@pytest.mark.parametrize(
    ("method", "value"),
    [
        ("number", True),
        ("number", "1"),
        ("flag", 1),
        ("flag", "true"),
        ("text", 1),
        ("integers", "12"),
        ("integers", [1, 2.0]),
        ("integers", [True]),
        ("integers", 3),
    ],
)
def test_other_types_are_refused_by_name(method: str, value: Any) -> None:
    with pytest.raises(CheckpointError, match="`key` must be"):
        getattr(fields(key=value), method)("key")


def test_a_section_knows_its_place() -> None:
    assert fields().section("rope").values == {}
    with pytest.raises(CheckpointError, match=r"config\.json: part: rope has no `theta`"):
        fields(rope={}).section("rope").number("theta")
    with pytest.raises(CheckpointError, match="`rope` must be dict"):
        fields(rope=[1]).section("rope")


def test_values_that_are_not_implemented_are_refused_by_name() -> None:
    assert fields(act="silu").require("act", ("silu",), "silu") == "silu"
    assert fields().require("act", ("silu",), "silu") == "silu"
    with pytest.raises(CheckpointError, match=r"`act` = gelu is not implemented \(known: 'silu'\)"):
        fields(act="gelu").require("act", ("silu",), "silu")
    with pytest.raises(CheckpointError, match="not implemented"):
        fields(act={"a": [1]}).require("act", ("silu",), "silu")


@pytest.mark.parametrize("values", [None, [], "text", 7])
def test_a_configuration_that_is_no_object_is_refused(values: Any) -> None:
    with pytest.raises(CheckpointError, match="must be a JSON object"):
        Fields(values, "config.json")
