"""Reading ahead is tried, judged by its use, paused where it does not pay, and tried again."""

from mimo_cli.offload.ahead import AheadControl


def test_reads_that_are_used_go_on_and_wasted_ones_stop() -> None:
    good, bad = AheadControl(), AheadControl()
    for count in range(0, 400, 2):
        assert good.is_on(count, int(0.8 * count))
    answers = [bad.is_on(count, int(0.3 * count)) for count in range(0, 400, 2)]
    assert answers[0] and not any(answers[40:])


def test_a_pause_ends_and_what_was_read_before_it_is_forgiven() -> None:
    control = AheadControl()
    prefetched = 0
    while control.is_on(prefetched, 0):
        prefetched += 2
    for _ in range(5000):
        if control.is_on(prefetched, 0):
            break
    else:
        raise AssertionError("never tried again")
    used = 0
    for _ in range(100):
        prefetched, used = prefetched + 2, used + 2
        assert control.is_on(prefetched, used)
