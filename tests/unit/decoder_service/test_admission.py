"""Places are bounded, come back whatever happens, and a refusal says when to try again."""

from __future__ import annotations

import threading
import time

import pytest

from decoder_service.admission import Admission, TokenRate
from tandem.errors import Overloaded


class Clock:
    """Replaces time.monotonic."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_running_and_waiting_places_are_given_then_refused_then_given_again() -> None:
    places = Admission(running=2, waiting=1)
    held = [places.slot() for _ in range(3)]
    for slot in held:
        slot.__enter__()
    with pytest.raises(Overloaded, match="3 requests"), places.slot():
        pass
    held[0].__exit__(None, None, None)
    with places.slot():
        pass


def test_a_failed_request_gives_its_place_back() -> None:
    places = Admission(running=1, waiting=0)
    with pytest.raises(ValueError, match="broken"), places.slot():
        raise ValueError("broken")
    with places.slot():
        pass


def test_the_retry_hint_follows_how_long_requests_take(clock: Clock) -> None:
    places = Admission(running=2, waiting=0)
    for _ in range(100):
        with places.slot():
            clock.now += 8.0
    first, second = places.slot(), places.slot()
    with first, second, pytest.raises(Overloaded) as caught, places.slot():
        pass
    assert caught.value.retry_after == pytest.approx(4.0, abs=0.1)


def test_the_rate_covers_the_last_ten_seconds(clock: Clock) -> None:
    rate = TokenRate()
    assert rate.per_second() == 0
    for _ in range(40):
        rate.add(50)
        clock.now += 0.5
    assert rate.per_second() == pytest.approx(100, rel=0.06)
    clock.now += 11
    assert rate.per_second() == 0


def test_tokens_counted_in_one_thread_while_another_reads_are_not_lost(clock: Clock) -> None:
    rate = TokenRate()
    counting = threading.Thread(target=rate.add, args=(50,))

    class Old(int):
        """Tokens that take a while to forget."""

        def __rsub__(self, total: int) -> int:
            counting.start()
            counting.join(0.2)
            return total - int(self)

    rate.add(Old(100))
    clock.now += 11
    rate.per_second()
    counting.join()
    assert rate.per_second() == 5
