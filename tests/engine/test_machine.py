"""The machine's description: every field filled."""

from mimo_cli.engine.machine import describe_machine


def test_every_measurement_can_say_where_it_was_made() -> None:
    found = describe_machine()
    assert found["cores"] >= 1 and found["threads"] >= 1 and found["memory_bytes"] > 10**8
    assert all(found[key] for key in ("cpu", "system", "python", "torch", "numpy"))
