"""How `cost` times: what waits, what is reset, in which order."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from seedscope.costs import session, timing
from seedscope.costs.configurations import DEFAULT, STRICT, Effort


def test_the_first_step_has_its_own_time_and_memory(told):
    def make():
        return lambda: told.append("steps") or torch.ones(1)

    found = session._repeat(make, DEFAULT, Effort(repeats=1, steps=2), is_cuda=True)
    assert told == ["resets", "waits", "steps", "waits", "resets", "steps", "reads"]
    assert found.peak_mb == 2.0
    assert len(found.first_ms) == 1


def test_a_launch_is_timed_on_an_idle_gpu(told):
    timing.launch_ms(lambda: told.append("steps"))
    assert told == ["waits", "steps", "waits"]


def test_events_give_the_milliseconds_of_one_call(monkeypatch):
    class Event(SimpleNamespace):
        def record(self):
            pass

        def elapsed_time(self, other):
            return 30.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    assert timing.timed(lambda: None, 10, True)() == 3.0


def timed_arms(monkeypatch, rounds: int, configurations: list) -> list:
    told: list = []

    def timed(call, count, is_cuda):
        told.append(torch.are_deterministic_algorithms_enabled())
        return lambda: 1.0

    monkeypatch.setattr(session, "steps_for", lambda *arguments: 1)
    monkeypatch.setattr(session, "timed", timed)

    def make():
        return lambda: told.append("steps") or torch.ones(1)

    session.run_session(make, configurations, Effort(rounds, 0.01, repeats=1, steps=1))
    return told


def test_an_untimed_step_follows_each_change_of_settings(monkeypatch):
    # The repeat, the step after the change, the configuration, and the product beside it.
    assert timed_arms(monkeypatch, 1, [DEFAULT]) == ["steps", "steps", False, False]


def test_the_settings_take_turns_in_another_order_each_round(monkeypatch):
    told = [x for x in timed_arms(monkeypatch, 8, [DEFAULT, STRICT]) if x != "steps"]
    rounds = {*zip(told[::3], told[1::3], strict=True)}  # each third entry is the product
    assert rounds == {(False, True), (True, False)}
