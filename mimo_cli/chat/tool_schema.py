"""Values of tool calls: the text between parameter tags, by the type that the tool declares for it.

The model writes every value as bare text. A value that does not fit its declared type stays the string it is: losing
what the model wrote would be worse than a wrong type. Source: chat specification, section 9, rule 5.
"""

import ast
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_MISFIT = object()
_INTEGER = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_MAX_DIGITS = 4000
"""Python refuses to convert longer integers; nobody means them."""


def declared_functions(tools: Sequence[Mapping[str, Any]] | None) -> dict[str, Mapping[str, Any]]:
    """Return the parameter schemas (name -> schema) of each declared function; tools may be wrapped or flat."""
    functions: dict[str, Mapping[str, Any]] = {}
    for tool in tools or ():
        function = tool.get("function", tool)
        parameters = function.get("parameters")
        properties = parameters.get("properties") if isinstance(parameters, Mapping) else None
        functions[function["name"]] = properties if isinstance(properties, Mapping) else {}
    return functions


def typed_value(text: str, schema: Any) -> Any:
    """Return the value that `text` stands for under a parameter's schema, or text itself where it does not fit.

    Several types (`type` as a list, `anyOf`, `oneOf`) are tried in order.
    """
    types = declared_types(schema)
    if "null" in types and text in ("null", "None"):
        return None
    if types and "string" not in types and text == "null":
        return None
    for name in types:
        value = _READERS[name](text) if name in _READERS else _MISFIT
        if value is not _MISFIT:
            return value
    return text


def declared_types(schema: Any) -> list[str]:
    """Return the type names of a schema in order, those of its alternatives included; none for no schema."""
    if not isinstance(schema, Mapping):
        return []
    declared = schema.get("type")
    if isinstance(declared, str):
        return [declared]
    if isinstance(declared, list):
        return [name for name in declared if isinstance(name, str)]
    alternatives = schema.get("anyOf") or schema.get("oneOf")
    return [name for each in alternatives for name in declared_types(each)] if isinstance(alternatives, list) else []


def _integer(text: str) -> Any:
    return int(text) if _INTEGER.fullmatch(text) and len(text) <= _MAX_DIGITS else _MISFIT


def _number(text: str) -> Any:
    if not _NUMBER.fullmatch(text) or len(text) > _MAX_DIGITS:
        return _MISFIT
    if _INTEGER.fullmatch(text):
        return int(text)
    value = float(text)
    if not math.isfinite(value):
        return _MISFIT
    return int(value) if value.is_integer() else value


def _boolean(text: str) -> Any:
    return {"true": True, "false": False}.get(text.lower(), _MISFIT)


def _structure(kind: type) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        for parse in (_json, ast.literal_eval):
            try:
                value = parse(text)
                # Python literals may hold what JSON cannot (sets, bytes, numbers as keys): those do not fit.
                if isinstance(value, kind) and json.loads(json.dumps(value, allow_nan=False)) == value:
                    return value
            except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
                continue
        return _MISFIT

    return read


def _json(text: str) -> Any:
    return json.loads(text, parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_READERS: dict[str, Callable[[str], Any]] = {
    "string": lambda text: text,
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "object": _structure(dict),
    "array": _structure(list),
}
