"""Settings that change while a dialogue runs: `/set NAME VALUE` and `/think` on the options of the next answer."""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

from mimo_cli.dialogue import TurnOptions
from mimo_cli.engine.sampling import SamplingParams
from mimo_cli.errors import UsageError
from mimo_cli.units import parse_count

_SAMPLING: dict[str, tuple[str, Callable[[str], Any]]] = {
    "temp": ("temperature", float),
    "top_p": ("top_p", float),
    "top_k": ("top_k", int),
    "min_p": ("min_p", float),
    "rep_penalty": ("repetition_penalty", float),
    "seed": ("seed", int),
    "max_tokens": ("max_tokens", parse_count),
}
_DEFAULTS = {field.name: field.default for field in fields(SamplingParams)}
_RESET = ("none", "default")
_SWITCH = {"on": True, "yes": True, "true": True, "off": False, "no": False, "false": False}


def change_setting(options: TurnOptions, name: str, value: str) -> TurnOptions:
    """Return the options with one setting changed; `none` or `default` brings its default back.

    Raises UsageError for a name or a value there is none of.
    """
    name = name.replace("-", "_").removeprefix("__")
    is_reset = value in _RESET
    if name in _SAMPLING:
        field, parse = _SAMPLING[name]
        try:
            changes: dict[str, Any] = {field: _DEFAULTS[field] if is_reset else parse(value)}
        except ValueError:
            raise UsageError(f"`{value}` is no value for {name}", hint=f"/set {name} NUMBER, or none") from None
        return replace(options, sampling=replace(options.sampling, **changes))
    if name == "think_budget":
        return replace(options, think_budget_tokens=None if is_reset else parse_count(value))
    if name in ("loop_guard", "think"):
        if not is_reset and value not in _SWITCH:
            raise UsageError(f"`{value}` is no value for {name}", hint=f"/set {name} on, or off")
        is_on = is_reset or _SWITCH[value]
        return replace(options, thinking=is_on) if name == "think" else replace(options, loop_guard=is_on)
    if name == "stop":
        return replace(options, stop_texts=() if is_reset else (*options.stop_texts, value))
    raise UsageError(f"there is no setting `{name}`", hint=f"/set with one of {', '.join(setting_names())}")


def setting_names() -> list[str]:
    """Return the names that `/set` knows."""
    return [*_SAMPLING, "think", "think_budget", "loop_guard", "stop"]


def setting_lines(options: TurnOptions) -> list[str]:
    """Return every setting with its value."""
    values: dict[str, Any] = {name: getattr(options.sampling, field) for name, (field, _) in _SAMPLING.items()}
    values |= {
        "think": "on" if options.thinking else "off",
        "think_budget": options.think_budget_tokens,
        "loop_guard": "on" if options.loop_guard else "off",
        "stop": ", ".join(repr(text) for text in options.stop_texts) or None,
    }
    return [f"  {name:<14}{'none' if value is None else value}" for name, value in values.items()]
