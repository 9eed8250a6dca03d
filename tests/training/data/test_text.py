"""Text tasks: every answer is right by an independent reading of the question; splits differ."""

import re

import numpy as np
import pytest

from training.data import lookup, smalltalk, strings, sums, system, tools
from training.data.prose import NAMES, PLAIN_WORDS
from training.data.sample import Sample, dialogue
from training.data.tool_kinds import HELD_OUT_KINDS, KINDS
from training.data.wording import Wording


def samples(make, count=200, split="train", **options):
    rng = np.random.default_rng(2)
    return [make(rng, split, **options) for _ in range(count)]


def function_of(tool):
    return tool.get("function", tool)


@pytest.mark.parametrize(
    "make",
    [sums.make, lookup.make, lookup.make_needle, system.make, smalltalk.make, tools.make],
    ids=lambda f: f.__module__,
)
def test_the_same_seed_gives_the_same_sample(make):
    assert make(np.random.default_rng(7), "train") == make(np.random.default_rng(7), "train")


def test_sums_in_digits_are_right():
    checked = 0
    for sample in samples(sums.make, 400):
        found = re.search(r"(\d+) ?([-+x*]) ?(\d+)", sample.text)
        if found is None or sample.facts["kind"] != "sum":
            continue
        a, sign, b = int(found[1]), found[2].replace("x", "*"), int(found[3])
        assert sample.answer == str({"+": a + b, "-": a - b, "*": a * b}[sign])
        checked += 1
    assert checked > 150


def test_stories_and_reasoning_lead_to_the_answer():
    for sample in samples(sums.make, 400):
        if sample.reasoning is not None:
            assert sample.reasoning.endswith(f"= {sample.answer}")
        if sample.facts["kind"] == "sum":
            operation, (a, b) = sample.facts["operation"], sample.facts["numbers"]
            assert int(sample.answer) == sums.result(operation, a, b) >= 0


def test_pairs_of_two_digits_are_split():
    for split in ("train", "held_out"):
        for sample in samples(sums.make, 300, split):
            if sample.facts["operation"] != "x":
                a, b = sample.facts["numbers"]
                assert sums.is_held_out(a, b) == (split == "held_out") or min(a, b) < 10


def test_a_copy_stands_in_the_question_and_a_reversal_reads_backwards():
    for sample in samples(strings.make, kind="copy"):
        assert sample.answer in sample.text
    for sample in samples(strings.make, kind="reverse"):
        items = sample.answer.split(", ") if ", " in sample.answer else sample.answer.split(" ")
        back = [sample.answer[::-1]] if len(items) == 1 else items[::-1]
        between = ", " if ", " in sample.answer else " "
        assert between.join(back) in sample.text


def test_sorted_items_are_those_of_the_question_in_order():
    for sample in samples(strings.make, kind="sort"):
        between = ", " if ", " in sample.answer else " "
        items = sample.answer.split(between)
        keyed = [int(item) for item in items] if items[0].isdigit() else items
        assert keyed in (sorted(keyed), sorted(keyed, reverse=True))
        assert all(item in sample.text for item in items)
        if sample.reasoning:
            positions = [sample.reasoning.index(item) for item in items if items.count(item) == 1 and len(item) > 2]
            assert positions == sorted(positions)


def test_counts_and_cases_are_right():
    for sample in samples(strings.make, kind="count_letters"):
        assert sample.answer.isdigit() and 1 <= int(sample.answer) <= 11
    for sample in samples(strings.make, kind="case"):
        assert sample.answer in (sample.answer.upper(), sample.answer.lower())
        assert sample.answer.lower() in sample.text.lower()


def test_the_asked_fact_is_stated_once_and_others_differ():
    for sample in samples(lookup.make, 300):
        told = " ".join((*(turn[0] for turn in sample.turns), sample.text))
        if sample.facts["kind"] == "fact":
            sentences = [part for part in re.split(r"(?<=[.?:\n])\s*", told) if sample.facts["key"] in part]
            assert any(re.search(rf"\b{sample.answer}\b", sentence) for sentence in sentences)
        else:
            assert all(value in told for value in sample.answer.split(", "))


def test_lookup_lengths_follow_the_wanted_number_of_tokens():
    for tokens in ((60, 120), (900, 1100)):
        for sample in samples(lookup.make, 30, tokens=tokens, pairs_share=0.0):
            told = " ".join((*(turn[0] for turn in sample.turns), sample.text))
            assert tokens[0] * 0.9 < len(told) / 4 < tokens[1] * 1.15 + 130  # several facts may exceed a short length


def test_the_needle_is_said_once_at_any_depth():
    depths = []
    for sample in samples(lookup.make_needle, 40, tokens=(300, 4096)):
        assert sample.text.count(lookup.NEEDLE.format(x=sample.answer)) == 1
        assert sample.text.endswith(lookup.NEEDLE_QUESTION)
        assert len(sample.text) / 4 < 4096 * 1.03
        depths.append(sample.facts["depth"])
    assert min(depths) < 0.2 and max(depths) > 0.8


def test_system_rules_shape_the_answer():
    for rule, holds in {
        "capitals": str.isupper,
        "small": str.islower,
        "yes_no": lambda answer: answer in ("yes", "no"),
        "name": lambda answer: answer in NAMES,
        "number_words": lambda answer: not any(map(str.isdigit, answer)),
    }.items():
        assert all(holds(sample.answer) for sample in samples(system.make, 60, rule=rule))
    for rule, index in (("end", -1), ("begin", 0), ("always", 0)):
        for sample in samples(system.make, 60, rule=rule):
            assert sample.answer.split()[index] in sample.system
    for sample in samples(system.make, 60, rule="fact"):
        assert sample.answer in sample.system


def test_words_of_system_rules_are_split():
    for sample in samples(system.make, 60, "held_out", rule="end"):
        assert sample.answer.split()[-1] in system.HELD_OUT_WORDS
    assert not set(system.HELD_OUT_WORDS) & set(system.WORDS)
    assert set(system.HELD_OUT_WORDS) <= set(PLAIN_WORDS)


def test_calls_fit_a_declared_tool_and_take_their_values_from_the_request():
    for sample in samples(tools.make, 400):
        declared = {function_of(tool)["name"]: function_of(tool)["parameters"]["properties"] for tool in sample.tools}
        assert len(declared) == len(sample.tools) >= 1
        for name, arguments in sample.tool_calls:
            function = next(f for f in map(function_of, sample.tools) if f["name"] == name)
            assert set(arguments) == set(function["parameters"].get("required", declared[name]))
            for key, value in arguments.items():
                assert isinstance(value, int) == (declared[name][key]["type"] == "integer")
                assert str(value) in sample.text
        assert bool(sample.answer) == (sample.facts["kind"] in ("idle", "result"))
        assert len(sample.tool_results) == (sample.facts["kind"] == "result")


def test_held_out_tools_and_requests_are_new():
    names = {name for kind in HELD_OUT_KINDS.values() for name in kind.names}
    assert not names & {name for kind in KINDS.values() for name in kind.names}
    assert len(KINDS) >= 12
    seen = [call[0] for sample in samples(tools.make, 300, "held_out") for call in sample.tool_calls]
    assert 0.15 < sum(name in names for name in seen) / len(seen) < 0.6


def test_every_question_has_eight_wordings_and_some_kept_out():
    modules = (sums, strings, lookup, smalltalk, tools)
    wordings = [value for module in modules for value in vars(module).values() if isinstance(value, Wording)]
    wordings += [wording for wording, _ in smalltalk.TALK]
    assert len(wordings) > 25
    for wording in wordings:
        assert len(wording.train) >= 8 and len(wording.held_out) >= 2
        assert not set(wording.train) & set(wording.held_out)


def groups(make, count=60):
    return [make(np.random.default_rng(seed), "train") for seed in range(count)]


def test_a_group_of_requests_shares_its_declarations_and_calls_copy_them():
    kinds = set()
    for group in groups(tools.make_group):
        assert all(sample.tools == group[0].tools for sample in group)
        declared = {}
        for tool in group[0].tools:
            function = function_of(tool)
            declared[function["name"]] = set(function["parameters"]["properties"])
        assert len(declared) == len(group[0].tools)
        for sample in group:
            kinds.add(sample.task)
            for name, arguments in sample.tool_calls:
                assert set(arguments) <= declared[name]
                assert all(str(value) in sample.text for value in arguments.values())
    assert kinds == {"tools call", "tools result", "tools idle"}


def test_a_group_of_lookups_asks_for_different_facts_of_one_text():
    for group in groups(lookup.make_group):
        beginnings = {sample.turns[0][0] if sample.turns else sample.text[:20] for sample in group}
        assert len(beginnings) == 1 and len(group) > 1
        assert len({(sample.facts["key"], sample.answer) for sample in group}) == len(group)
        for sample in group:
            told = " ".join((*(turn[0] for turn in sample.turns), sample.text))
            assert sample.answer in told and sample.facts["key"] in told


def test_a_dialogue_repeats_what_was_said_before():
    first, second, third = dialogue(
        [Sample("a", (question,), question.upper()) for question in ("one", "two", "three")]
    )
    assert first.turns == () and second.turns == ((("one",), "ONE"),)
    assert third.turns == ((("one",), "ONE"), (("two",), "TWO"))
    assert third.user == ("three",) and third.parts == ("one", "two", "three")
