import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimo_cli.chat.tool_schema import declared_functions, declared_types, typed_value

NUMBERS = [
    ("5", 5), ("-3", -3), ("+7", 7), ("2.50", 2.5), ("1e3", 1000), ("5.0", 5), (".5", 0.5), ("1E-2", 0.01), ("5.", 5),
]  # fmt: skip


@pytest.mark.parametrize(("text", "value"), NUMBERS)
def test_numbers_are_decimal_or_exponent_and_integral_ones_integers(text: str, value: float) -> None:
    found = typed_value(text, {"type": "number"})
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize("text", ["inf", "nan", "1e999", "0x10", "1_000", "", " 5", "5 ", "five", "١", "1" * 5000])
def test_what_is_no_number_stays_text(text: str) -> None:
    assert typed_value(text, {"type": "number"}) == text
    assert typed_value(text, {"type": "integer"}) == text


def test_integers_have_digits_only() -> None:
    assert typed_value("-12", {"type": "integer"}) == -12
    assert typed_value("1.0", {"type": "integer"}) == "1.0"
    assert typed_value("12345678901234567890", {"type": "number"}) == 12345678901234567890


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("False", False), ("TRUE", True), ("yes", "yes"), ("1", "1")]
)
def test_booleans_are_true_or_false_in_any_case(text: str, value: Any) -> None:
    assert typed_value(text, {"type": "boolean"}) is value or typed_value(text, {"type": "boolean"}) == value


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ('{"a": [1, null]}', "object", {"a": [1, None]}),
        ("{'a': True, 'b': None}", "object", {"a": True, "b": None}),
        ("['a', 'b']", "array", ["a", "b"]),
        ("[1, 2]", "object", "[1, 2]"),
        ('{"a": 1}', "array", '{"a": 1}'),
        ("(1, 2)", "array", "(1, 2)"),
        ("{1: 2}", "object", "{1: 2}"),
        ("{'a': {1, 2}}", "object", "{'a': {1, 2}}"),
        ('{"a": NaN}', "object", '{"a": NaN}'),
        ("{'a': 1e999}", "object", "{'a': 1e999}"),
        ("[1, 2", "array", "[1, 2"),
        ("__import__('os')", "object", "__import__('os')"),
    ],
)
def test_structures_are_json_or_python_literals_of_the_right_kind(text: str, kind: str, value: Any) -> None:
    assert typed_value(text, {"type": kind}) == value


def test_deep_nesting_stays_text() -> None:
    text = "[" * 100_000 + "]" * 100_000
    assert typed_value(text, {"type": "array"}) == text


def test_null_is_null_for_any_type_but_string() -> None:
    assert typed_value("null", {"type": "string"}) == "null"
    assert typed_value("null", {"type": "integer"}) is None
    assert typed_value("None", {"type": "integer"}) == "None"
    assert typed_value("null", None) == "null" and typed_value("null", {}) == "null"


def test_null_is_null_where_it_is_allowed() -> None:
    for schema in ({"type": ["string", "null"]}, {"anyOf": [{"type": "string"}, {"type": "null"}]}):
        assert typed_value("None", schema) is None and typed_value("null", schema) is None
        assert typed_value("nil", schema) == "nil"


def test_several_types_are_tried_in_order() -> None:
    assert typed_value("5", {"type": ["string", "integer"]}) == "5"
    assert typed_value("5", {"type": ["integer", "string"]}) == 5
    assert typed_value("x", {"oneOf": [{"type": "integer"}, {"type": "boolean"}]}) == "x"
    assert typed_value("true", {"oneOf": [{"type": "integer"}, {"anyOf": [{"type": "boolean"}]}]}) is True


@pytest.mark.parametrize(
    "schema", [None, 5, "string", {}, {"type": 5}, {"type": ["strange"]}, {"anyOf": "x"}, {"enum": [1]}]
)
def test_without_a_known_type_the_text_stays(schema: Any) -> None:
    assert typed_value("7", schema) == "7"


def test_types_are_listed_in_order() -> None:
    assert declared_types({"type": ["integer", "null", 5]}) == ["integer", "null"]
    assert declared_types({"anyOf": [{"type": "a"}, {"type": ["b", "c"]}, 7]}) == ["a", "b", "c"]


@given(st.text(), st.sampled_from(["string", "integer", "number", "boolean", "object", "array", "null", "other"]))
def test_any_value_can_be_sent_as_json(text: str, kind: str) -> None:
    json.dumps(typed_value(text, {"type": kind}), allow_nan=False)


def test_functions_are_declared_wrapped_or_flat() -> None:
    properties = {"a": {"type": "string"}}
    tools = [
        {"type": "function", "function": {"name": "f", "parameters": {"properties": properties}}},
        {"name": "g", "parameters": None},
        {"name": "h"},
        {"name": "i", "parameters": {"properties": []}},
    ]
    assert declared_functions(tools) == {"f": properties, "g": {}, "h": {}, "i": {}}
    assert declared_functions(None) == {}
