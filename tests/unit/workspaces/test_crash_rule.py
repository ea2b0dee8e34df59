"""What follows a dead editor, in every runtime."""

from mooring.workspaces.crashes import judged


def test_the_fifth_death_in_ten_minutes_is_the_last() -> None:
    """The delay doubles from death to death; the fifth one ends it, with how the last one was."""
    times: list[float] = []
    delays = []
    for number in range(4):
        times, delay, reason = judged(times, 1000.0 + number, "was killed by SIGSEGV")
        delays.append(delay)
    assert delays == [0.2, 0.4, 0.8, 1.6]
    assert reason == "the editor was killed by SIGSEGV; it starts again in 1.6 s"
    times, delay, reason = judged(times, 1010.0, "ended with exit status 1")
    assert delay is None
    assert reason == "the editor ended 5 times in 10 minutes; the last one ended with exit status 1"


def test_a_death_of_long_ago_does_not_count() -> None:
    """Ten minutes later everything begins anew."""
    assert judged([1.0, 2.0, 3.0, 4.0], 700.0, "ended")[:2] == ([700.0], 0.2)


def test_a_death_to_come_does_not_count() -> None:
    """A clock that was set back does not make a broken past out of the future."""
    assert judged([9000.0, 9001.0, 9002.0, 9003.0], 700.0, "ended")[:2] == ([700.0], 0.2)
