import os
import signal
import threading

import pytest

from zoo.training.interruption import Interrupted, Signals


def test_a_signal_is_noted_and_raised_when_asked_for():
    with Signals() as signals:
        signals.check()
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted, match="interrupted by SIGTERM") as caught:
            signals.check()
    assert caught.value.exit_code == 143
    assert not isinstance(caught.value, Exception)


def test_a_second_ctrl_c_ends_at_once():
    with Signals() as signals:
        signal.raise_signal(signal.SIGINT)
        assert signals.stop == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="this system has no SIGUSR1")
def test_sigusr1_asks_for_a_save_alone():
    with Signals() as signals:
        signal.raise_signal(signal.SIGUSR1)
        assert signals.save
        signals.check()


def test_handlers_are_put_back_and_marks_forgotten():
    before = signal.getsignal(signal.SIGTERM)
    signals = Signals()
    with signals:
        signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before
    with signals:
        signals.check()


def test_outside_the_main_thread_nothing_is_installed():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def enter():
        with Signals():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [before]
