"""Signals never strike between making something and noting that it must be undone."""

from __future__ import annotations

import os
import signal

import pytest

from masque_connect.demo.interrupts import Interrupts


def test_a_signal_interrupts_at_once() -> None:
    with Interrupts().active(), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_waits_for_the_end_of_deferred_blocks() -> None:
    interrupts, reached = Interrupts(), []
    with interrupts.active(), pytest.raises(KeyboardInterrupt), interrupts.deferred():
        with interrupts.deferred():
            os.kill(os.getpid(), signal.SIGINT)
            reached.append("inner")
        reached.append("outer")
    assert reached == ["inner", "outer"]


def test_only_the_first_signal_interrupts() -> None:
    interrupts = Interrupts()
    with interrupts.active():
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)


def test_the_old_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with Interrupts().active():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
