"""Read damaged states: `state_fuzz.py SEED FIRST COUNT [FILE]`, or `audit SEED FIRST COUNT`.

An input is made from the seed and its number alone, so that each one can be read again. FILE
gets the number of the input that is read, for one that ends the interpreter.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import resource
import sys
import time
import warnings

import numpy as np
import torch

import seedscope
from damage import ODD_TENSORS, ODD_VALUES, damaged
from helpers import Lottery
from seedscope import RandomState, Snapshot, Stream, seeded, snapshot

ODD = (*ODD_VALUES, *ODD_TENSORS)
SECONDS, MEGABYTES = 2, 64
BIT_GENERATORS = ("MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64")


def of_bytes(size):
    return torch.arange(size, dtype=torch.uint8)


def states():
    """Return good states of each source, some of devices that are not here."""
    found = {"cuda": [[of_bytes(16)] * 2], "xpu": [[of_bytes(16)]], "mps": [[of_bytes(36)]]}
    found |= {"mtia": [[of_bytes(16)]], "lottery": [7, {"a": [1, 2.5, None, torch.ones(2)]}]}
    for kind in BIT_GENERATORS:
        with seeded(5):
            np.random.set_bit_generator(getattr(np.random, kind)(5))
            for draw in (list, random.random, lambda: random.gauss(0, 1), np.random.default_rng):
                draw()
                np.random.standard_normal()
                torch.randn(1), torch.randn(1, dtype=torch.float64)
                for name, state in snapshot().state_dict()["sources"].items():
                    found.setdefault(name, []).append(state)
    return found


def make_input(good, settings, seed, number):
    """Return the name of a reader and a damaged state for it."""
    chance = random.Random(f"{seed} {number}")
    names = chance.sample([*good], chance.choice([1, 1, 2, len(good)]))
    state = {"format": 1, "sources": {name: chance.choice(good[name]) for name in names}}
    kind = chance.choice(["Snapshot", "Stream", "RandomState"])
    if kind == "Snapshot":
        state["settings"] = settings
    elif kind == "Stream":
        state["seed"] = chance.randrange(2**64)
    state = damaged(state, chance, ODD)
    if chance.random() < 0.02:
        with contextlib.suppress(UnicodeEncodeError):  # no file can have such a text
            state = saved_and_loaded(state)
    return kind, state


def saved_and_loaded(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def read(kind, state):
    """Return a function that goes on from a state, which is read here."""
    if kind == "Snapshot":
        return Snapshot.from_state_dict(state).restore
    if kind == "Stream":
        stream = Stream(3)
        stream.load_state_dict(state)
        return stream.__enter__
    RandomState().load_state_dict(state)
    return lambda: None


def draw():
    """Draw from each source, with loops that reject draws."""
    random.gauss(0, 1), random.randrange(10**30), random.sample(range(99), 5)
    np.random.standard_normal(3), np.random.permutation(9), np.random.randint(0, 2**40, 3)
    np.random.standard_gamma(0.5), np.random.poisson(3), np.random.default_rng().random()
    torch.randn(3), torch.rand(700), torch.randn(1, dtype=torch.float64), torch.randperm(9)
    torch.poisson(torch.ones(3)), torch.normal(0.0, torch.ones(20))


def read_and_use(kind, state, before):
    """Read a state inside a block; nothing may change if it is refused. Return the outcome."""
    with seeded(5):
        inside = snapshot()
        try:
            go_on = read(kind, state)
        except ValueError:
            assert snapshot() == inside, "a refused state has changed something"
            return "refused"
        go_on()
        draw()
        with seeded(7) as scope:
            draw()
        assert {"python", "numpy", "torch"} <= set(scope.used())
        if kind == "Stream":
            seedscope.current_scope().__exit__(None, None, None)
    assert snapshot() == before, "the block has not ended in the state outside"
    return "taken"


def fuzz(seed, numbers, file):
    good, settings = states(), snapshot().state_dict()["settings"]
    before, outcomes = snapshot(), {"refused": 0, "taken": 0}
    place = os.open(file, os.O_WRONLY | os.O_CREAT)
    for number in numbers:
        os.pwrite(place, b"%20d" % number, 0)
        kind, state = make_input(good, settings, seed, number)
        peak, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
        try:
            outcomes[read_and_use(kind, state, before)] += 1
            seconds = time.perf_counter() - start
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) / 1024
            assert seconds < SECONDS, f"took {seconds:.1f} s"
            assert grown < MEGABYTES, f"took {grown:.0f} MB"
        except BaseException:
            print(f"input {number} of seed {seed}, for {kind}: {state!r:.3000}", file=sys.stderr)
            raise
    return outcomes


def audit(seed, numbers):
    """Return the events of the interpreter while states are read and restored."""
    good, settings = states(), snapshot().state_dict()["settings"]
    events, watches = set(), False

    def note(event, arguments):
        if watches:
            events.add(f"{event} {str(arguments)[:200] if event == 'import' else ''}".strip())

    inputs = [make_input(good, settings, seed, number) for number in numbers]
    inputs += [("RandomState", {"format": 1, "sources": {n: s}}) for n in good for s in good[n]]
    read(*inputs[-1])  # what is loaded late is loaded now
    sys.addaudithook(note)
    for kind, state in inputs:
        with seeded(5):
            watches = True
            with contextlib.suppress(ValueError):
                read(kind, state)
            watches = False
    told = sorted(events)
    watches = True
    open(os.devnull).close()
    assert "open" in events, "the hook hears nothing"
    return told


if __name__ == "__main__":
    mode, *rest = sys.argv[1:]
    warnings.simplefilter("ignore")  # of devices that are not here
    seedscope.register_source(Lottery())
    if mode == "audit":
        seed, first, count = map(int, rest)
        print(audit(seed, range(first, first + count)))
    else:
        first, count, *file = rest
        numbers = range(int(first), int(first) + int(count))
        print(fuzz(int(mode), numbers, *file or [os.devnull]))
