import signal
import threading

import pytest

from jitter_jax.train import stop_on_signals

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def handlers():
    return [signal.getsignal(number) for number in SIGNALS]


@pytest.mark.parametrize("number, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_first_signal_is_a_request(number, status):
    before, reached = handlers(), False
    with pytest.raises(SystemExit) as error, stop_on_signals() as stop:
        assert stop.requested is None and handlers() != before
        signal.raise_signal(number)
        signal.raise_signal(signal.SIGTERM)
        assert stop.requested == number
        reached = True
    assert reached and error.value.code == status and handlers() == before


@pytest.mark.parametrize("first", SIGNALS)
def test_ctrl_c_after_a_signal_stops_at_once(first):
    before = handlers()
    with pytest.raises(KeyboardInterrupt), stop_on_signals():
        signal.raise_signal(first)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("not reached")
    assert handlers() == before


def test_nothing_happens_without_a_signal():
    before = handlers()
    with stop_on_signals():
        pass
    with pytest.raises(ValueError, match="mine"), stop_on_signals() as stop:
        signal.raise_signal(signal.SIGTERM)
        raise ValueError("mine")
    assert stop.requested == signal.SIGTERM and handlers() == before


def test_other_threads_are_left_alone():
    before, seen = handlers(), []

    def work():
        with stop_on_signals() as stop:
            seen.append((stop.requested, handlers() == before))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(None, True)]
