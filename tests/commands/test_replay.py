"""`mimo bench --replay` and `--record-routing`: from an answer to hit rates, without a model the second time."""

import json
from pathlib import Path

import pytest

from mimo_cli.commands.replay import parse_slots
from mimo_cli.errors import UsageError
from tests.support.cli import run_cli

ROW_KEYS = {"slots", "slots_share", "lru", "ours", "optimum", "gap_closed"}
RATE_KEYS = {"decode_rate", "rate", "decode_asked", "decode_hits", "asked", "hits"}


def test_an_answer_is_recorded_and_replayed(tmp_path: Path) -> None:
    path = str(tmp_path / "talk.jsonl")
    chat = ("chat", "-q", "--no-think", "-n", "12", "--temp", "0", "--no-history")
    plain = run_cli(*chat[:-1], "hello", home=tmp_path)
    recorded = run_cli(*chat[:-1], "--record-routing", path, "hello", home=tmp_path)
    assert recorded.code == plain.code == 0 and recorded.out == plain.out
    run = run_cli("bench", "--replay", path, "--slots", "25%,40", "--json", home=tmp_path)
    assert run.code == 0, run.err
    values = json.loads(run.out)
    assert values.keys() == {"schema", "trace", "rows"} and values["trace"]["model"] == "the bundled miniature"
    assert [row["slots"] for row in values["rows"]] == [20, 40]
    for row in values["rows"]:
        assert row.keys() == ROW_KEYS and row["lru"].keys() == RATE_KEYS
        assert row["optimum"]["hits"] >= max(row["ours"]["hits"], row["lru"]["hits"])
    table = run_cli("bench", "--replay", path, "--slots", "25%", home=tmp_path).out
    assert "gap closed" in table and "the bundled miniature: " in table


def test_slots_are_numbers_or_shares() -> None:
    assert parse_slots("12.5%,1k,99999", 2048, 8) == [256, 1024, 2048]
    for text, message in (("x", "count `x`"), ("y%", "neither a number nor a share"), ("7", "too few")):
        with pytest.raises(UsageError, match=message):
            parse_slots(text, 2048, 8)


def test_a_replay_goes_with_no_model(tmp_path: Path) -> None:
    assert run_cli("bench", "--replay", "t", "--shape", "v2.5", home=tmp_path).code == 2
    assert run_cli("bench", "--replay", "t", "-m", "somewhere", home=tmp_path).err.count("goes with none of") == 1
    usual = {"MIMO_MODEL": "somewhere"}  # what nobody typed conflicts with nothing
    assert "cannot be read" in run_cli("bench", "--replay", "no.jsonl", home=tmp_path, environ=usual).err
    missing = run_cli("bench", "--replay", str(tmp_path / "none"), home=tmp_path)
    assert missing.code == 2 and "cannot be read" in missing.err


def test_a_trace_that_cannot_be_written_stops_the_run(tmp_path: Path) -> None:
    run = run_cli("chat", "-q", "-n", "2", "--record-routing", str(tmp_path / "no" / "t"), "hello", home=tmp_path)
    assert run.code == 1 and "cannot be written" in run.err
