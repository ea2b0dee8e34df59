"""Whether a dead editor starts again, the same in every runtime: with backoff, until the fifth death in ten minutes.

Imported by the keeper: no typing, no dataclasses.
"""

MOST = 5
WINDOW_S = 600.0
_FIRST_DELAY_S = 0.2
MOST_DELAY_S = 30.0


def judged(times: list[float], now: float, how: str) -> tuple[list[float], float | None, str]:
    """A death at `now` (seconds since the epoch) after those at `times`; `how` follows "the editor".

    Returns the deaths that still count, the seconds until the next start (None: no more), and the reason for a person.
    """
    # Deaths to come are of a clock that was set back since: they would count until it is that late again.
    counted = [at for at in times if now - WINDOW_S < at <= now] + [now]
    count = len(counted)
    if count >= MOST:
        return counted, None, f"the editor ended {count} times in {WINDOW_S / 60:.0f} minutes; the last one {how}"
    delay = min(MOST_DELAY_S, _FIRST_DELAY_S * 2 ** (count - 1))
    return counted, delay, f"the editor {how}; it starts again in {delay:.1f} s"
