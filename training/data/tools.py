"""Tools: declared tools and the call that a request needs, the answer to a tool's result, or no call at all.

Beside the kinds of tool_kinds.py a share of the tools has invented names, which can only be copied.
"""

import numpy as np

from training.data import smalltalk, sums
from training.data.dice import Dice
from training.data.prose import COMMON_VERBS, PLAIN_WORDS
from training.data.sample import Sample, Split
from training.data.tool_kinds import HELD_OUT_KINDS, KINDS, Kind, Parameter
from training.data.wording import Wording, spell

INVENTED = Wording(
    (
        "Use {x}.", "Call {x}.", "Run {x}.", "Please call {x}.", "Start {x}.", "I want you to use {x}.",
        "Call the tool {x}.", "Use the tool {x}.", "Invoke {x}.", "Can you run {x}?",
    ),
    ("Execute {x}.", "Make a call of {x}.", "Let {x} run."),
)  # fmt: skip

Tool = dict[str, object]


OPTIONAL: tuple[tuple[str, dict[str, object]], ...] = (
    ("unit", {"type": "string", "enum": ["celsius", "fahrenheit"]}),
    ("verbose", {"type": "boolean", "description": "Say more."}),
    ("limit", {"type": "integer", "description": "At most so many."}),
    ("lang", {"type": "string", "description": "Language of the answer."}),
    ("format", {"type": "string", "enum": ["short", "long"]}),
    ("timeout", {"type": "number"}),
)


def _declare(name: str, description: str, parameters: list[tuple[str, Parameter]], dice: Dice) -> Tool:
    """A declaration as JSON, wrapped in `function` or flat, as clients send it.

    Now and then it has a parameter that is not required, which no request mentions and no call gives.
    """
    properties: dict[str, dict[str, object]] = {}
    for given, parameter in parameters:
        properties[given] = {"type": parameter.type}
        if parameter.values and dice.chance(0.4):
            properties[given]["enum"] = list(parameter.values)
        if dice.chance(0.25):
            properties[given]["description"] = f"The {parameter.key}."
    has_more = dice.chance(0.15)
    if has_more:
        extra, shape = dice.pick(OPTIONAL)
        properties.setdefault(extra, shape)
    schema: dict[str, object] = {"type": "object", "properties": properties}
    if has_more or dice.chance(0.6):
        schema["required"] = [given for given, _ in parameters]
    function: Tool = {"name": name, "description": description, "parameters": schema}
    return {"type": "function", "function": function} if dice.chance(0.8) else function


def _of_kind(kind: Kind, dice: Dice, split: Split) -> tuple[Tool, str, str, dict[str, object]]:
    """A tool of a kind, a request for it, its name and the arguments."""
    name = dice.pick(kind.names)
    given = [(dice.pick(parameter.names), parameter) for parameter in kind.parameters]
    values = {parameter.key: parameter.draw(dice) for parameter in kind.parameters}
    unseen = split == "held_out" and kind.held_out_requests and dice.chance(0.5)
    request = dice.pick(kind.held_out_requests if unseen else kind.requests)
    marks = {key: f"\0{i}\0" for i, key in enumerate(values)}
    request = spell(request.format(**marks), dice, split, courtesy="{text}" not in request)
    for key, mark in marks.items():
        request = request.replace(mark, str(values[key]))
    arguments: dict[str, object] = {own: values[parameter.key] for own, parameter in given}
    return _declare(name, dice.pick(kind.descriptions), given, dice), request, name, arguments


def _invented(dice: Dice, split: Split) -> tuple[Tool, str, str, dict[str, object]]:
    """A tool of an invented name and parameters, and a request that names them."""
    name = f"{dice.pick(COMMON_VERBS)}_{dice.pick(PLAIN_WORDS)}"
    keys = dice.some(PLAIN_WORDS, dice.integer(1, 2))
    given: list[tuple[str, Parameter]] = []
    values: dict[str, object] = {}
    for key in keys:
        numeric = dice.chance(0.4)
        given.append((key, Parameter(key, (key,), lambda _: "", "integer" if numeric else "string")))
        values[key] = _invented_value(numeric, dice)
    description = f"{name.replace('_', ' ').capitalize()}."
    return _declare(name, description, given, dice), _naming(name, values, dice, split), name, values


def _invented_value(numeric: bool, dice: Dice) -> object:
    return dice.integer(0, 99) if numeric else dice.pick(PLAIN_WORDS)


def _naming(name: str, values: dict[str, object], dice: Dice, split: Split) -> str:
    """A request that names a tool and its arguments."""
    sign = dice.pick((" ", " = ", " as ", ": "))
    told = f"{name} with " + " and ".join(f"{key}{sign}{value}" for key, value in values.items())
    return INVENTED.around(dice, split, told)


def _name_of(tool: Tool) -> object:
    function = tool.get("function", tool)
    return function["name"] if isinstance(function, dict) else None


def _others(dice: Dice, kinds: dict[str, Kind], but: str | None, count: int) -> list[Tool]:
    """Declarations of other kinds, to choose among."""
    chosen = [kind for kind in dice.some(tuple(kinds), count + 1) if kind != but][:count]
    return [_of_kind(kinds[kind], dice, "train")[0] for kind in chosen]


def _idle(dice: Dice, split: Split) -> tuple[str, str]:
    """A question that no tool helps with, and its answer."""
    kind = dice.uniform()
    if kind < 0.4:
        wording, answer = dice.pick(smalltalk.TALK[:7])
        return wording.say(dice, split), answer
    if kind < 0.7:
        return smalltalk.know(dice, split)
    a, b = dice.integer(0, 9), dice.integer(0, 9)
    return sums.SUM.around(dice, split, f"{a} + {b}"), str(a + b)


def make(rng: np.random.Generator, split: Split, *, idle_share: float = 0.12, result_share: float = 0.15) -> Sample:
    """A request under one to four declared tools.

    The answer is a call; in a share of `result_share` the words after a tool's result; in `idle_share` no call.
    """
    dice = Dice(rng)
    kinds = HELD_OUT_KINDS if split == "held_out" and dice.chance(0.35) else KINDS
    count = dice.pick((0, 0, 1, 1, 2, 3))
    if dice.chance(idle_share):
        question, answer = _idle(dice, split)
        tools = [tool for tool in _others(dice, kinds, "add", count + 1) if _name_of(tool)]
        return Sample("tools", (question,), answer, tools=tuple(tools), facts={"kind": "idle"})
    result = ""
    if kinds is KINDS and dice.chance(0.2):
        label = "invented"
        tool, request, name, arguments = _invented(dice, split)
    else:
        label = dice.pick(tuple(kinds))
        tool, request, name, arguments = _of_kind(kinds[label], dice, split)
        result = str(kinds[label].result(dice))
    tools = dice.shuffled([tool, *(other for other in _others(dice, kinds, label, count) if _name_of(other) != name)])
    calls = ((name, arguments),)
    facts = {"kind": label}
    if result and dice.chance(result_share):
        facts["kind"] = "result"
        return Sample(
            "tools", (request,), result, tools=tuple(tools), tool_calls=calls, tool_results=(result,), facts=facts
        )
    return Sample("tools", (request,), "", tools=tuple(tools), tool_calls=calls, facts=facts)


Request = tuple[str, dict[str, object], str, Tool, str]
"""A request, the arguments of the call, the tool's name, its declaration, and its result where that may be told."""


def make_group(rng: np.random.Generator, split: Split, *, asked: int = 8, result_share: float = 0.12) -> list[Sample]:
    """One set of one to four declared tools and `asked` requests under it, of which about one in seven needs none.

    Training sees many requests under one declaration that way, and has to choose among the tools each time.
    """
    dice = Dice(rng)
    kinds = HELD_OUT_KINDS if split == "held_out" and dice.chance(0.35) else KINDS
    labels = dice.some(tuple(kinds), dice.pick((1, 1, 2, 2, 3, 4)))
    requests: dict[str, list[Request]] = {}
    for label in labels:
        many = _requests(None if dice.chance(0.3) else kinds[label], dice, split)
        requests.setdefault(many[0][2], many)
    tools = tuple(dice.shuffled([many[0][3] for many in requests.values()]))
    group = []
    for request, arguments, name, _, result in dice.some([one for many in requests.values() for one in many], asked):
        has_result = bool(result) and dice.chance(result_share)
        group.append(
            Sample(
                "tools result" if has_result else "tools call",
                (request,),
                result if has_result else "",
                tools=tools,
                tool_calls=((name, arguments),),
                tool_results=(result,) if has_result else (),
            )
        )
    if "add" not in labels and dice.chance(len(group) / 6):
        question, answer = _idle(dice, split)
        group.append(Sample("tools idle", (question,), answer, tools=tools))
    return dice.shuffled(group)


def _requests(kind: Kind | None, dice: Dice, split: Split) -> list[Request]:
    """Two to five requests for one tool of a kind, or of an invented one, as it is declared once."""
    tool, request, name, arguments = _of_kind(kind, dice, split) if kind else _invented(dice, split)
    found: list[Request] = [(request, arguments, name, tool, str(kind.result(dice)) if kind else "")]
    for _ in range(dice.integer(1, 4)):
        if kind is None:
            values = {key: _invented_value(isinstance(value, int), dice) for key, value in arguments.items()}
            found.append((_naming(name, values, dice, split), values, name, tool, ""))
            continue
        _, request, _, drawn = _of_kind(kind, dice, split)
        if len(drawn) == len(arguments):  # two parameters of one name are one
            values = dict(zip(arguments, drawn.values(), strict=True))
            found.append((request, values, name, tool, str(kind.result(dice))))
    return found
