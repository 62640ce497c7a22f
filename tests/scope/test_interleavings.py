"""Random interleavings of everything a user can do, compared with a plain model.

The model of a source is a library's own generator object, kept on a stack: entering a
scope pushes new objects, and leaving pops them. The model itself uses no scope.
"""

from __future__ import annotations

import copy
import random

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fake_accelerator import DEVICES, FAKE
from seedscope import Stream, seeded, snapshot

SEEDS = st.integers(0, 2**64 - 1)


class World:
    """Independent generators and settings, as one frame of the model's stack."""

    def __init__(self, seed: int) -> None:
        words = seed if seed < 2**32 else [seed % 2**32, seed // 2**32]
        self.python = random.Random(seed)
        self.numpy = np.random.RandomState(words)
        self.torch = torch.Generator().manual_seed(seed)
        self.fake = [torch.Generator().manual_seed(seed) for _ in range(DEVICES)]
        self.mode = 2
        self.benchmark = False


def generate(stream: str):
    while True:
        yield random.random() if stream == "python" else np.random.standard_normal()


class Interleavings(RuleBasedStateMachine):
    @initialize(seed=SEEDS)
    def start(self, seed):
        self.outermost = snapshot()
        FAKE.reset()
        FAKE.init()
        random.seed(seed), torch.manual_seed(seed)
        np.random.seed(seed if seed < 2**32 else [seed % 2**32, seed // 2**32])
        self.worlds = [World(seed)]
        self.worlds[0].mode = torch.get_deterministic_debug_mode()
        self.worlds[0].benchmark = torch.backends.cudnn.benchmark
        self.scopes: list = []
        self.generators: list = []
        self.streams: dict[int, tuple[Stream, World]] = {}

    def teardown(self):
        if hasattr(self, "outermost"):
            while self.scopes:
                self.scopes.pop()[0].__exit__(None, None, None)
            FAKE.reset()
            self.outermost.restore()

    @property
    def world(self) -> World:
        return self.worlds[-1]

    @rule(seed=SEEDS, mode=st.sampled_from([True, "warn", "cudnn", False]))
    def enter(self, seed, mode):
        scope = seeded(seed, deterministic=mode)
        assert scope.__enter__().seed == seed
        world = World(seed)
        world.mode = {True: 2, "warn": 1}.get(mode, self.world.mode)
        world.benchmark = False if mode else self.world.benchmark
        self.scopes.append((scope, None))
        self.worlds.append(world)

    @rule(seed=st.integers(0, 2))
    def enter_a_stream(self, seed):
        stream, world = self.streams.setdefault(seed, (Stream(seed), World(seed)))
        stream.__enter__()
        self.scopes.append((stream, seed))
        # Entered again, also inside itself, a stream continues its random numbers alone.
        entry = copy.copy(world)
        entry.mode, entry.benchmark = 2, False
        self.worlds.append(entry)

    @precondition(lambda self: self.scopes)
    @rule(error=st.sampled_from([None, ValueError, KeyboardInterrupt]))
    def leave(self, error):
        scope, _ = self.scopes.pop()
        self.worlds.pop()
        raised = None if error is None else error("in the block")
        assert not scope.__exit__(error, raised, None)

    @rule()
    def draw_python(self):
        assert random.random() == self.world.python.random()

    @rule()
    def draw_python_gauss(self):
        assert random.gauss(0, 1) == self.world.python.gauss(0, 1)

    @rule()
    def draw_numpy(self):
        assert np.random.rand() == self.world.numpy.rand()

    @rule()
    def draw_numpy_gauss(self):
        assert np.random.standard_normal() == self.world.numpy.standard_normal()

    @rule(n=st.sampled_from([1, 3, 17]))
    def draw_torch(self, n):
        assert torch.equal(torch.randn(n), torch.randn(n, generator=self.world.torch))

    @rule()
    def draw_fake(self):
        assert FAKE.rand() == tuple(torch.rand(1, generator=g).item() for g in self.world.fake)

    @rule(seed=SEEDS)
    def seed_by_hand(self, seed):
        torch.manual_seed(seed)
        self.world.torch.manual_seed(seed)
        for generator in self.world.fake:
            generator.manual_seed(seed)

    @rule(mode=st.integers(0, 2), benchmark=st.booleans())
    def change_settings(self, mode, benchmark):
        torch.set_deterministic_debug_mode(mode)
        torch.backends.cudnn.benchmark = benchmark
        self.world.mode, self.world.benchmark = mode, benchmark

    @rule(seed=SEEDS, stream=st.sampled_from(["python", "numpy"]))
    def start_a_generator(self, seed, stream):
        self.generators.append((seeded(seed)(generate)(stream), World(seed), stream))

    @precondition(lambda self: self.generators)
    @rule(choice=st.integers(0, 100))
    def step_a_generator(self, choice):
        running, world, stream = self.generators[choice % len(self.generators)]
        got = next(running)
        expected = world.python.random() if stream == "python" else world.numpy.standard_normal()
        assert got == expected

    @precondition(lambda self: self.generators)
    @rule()
    def close_a_generator(self):
        self.generators.pop()[0].close()

    @rule()
    def snapshot_and_restore(self):
        moment = snapshot()
        random.random(), np.random.standard_normal(), torch.rand(1), FAKE.rand()
        moment.restore()

    @rule()
    def fresh_scope_inside(self):
        with seeded() as scope:
            random.random()
            assert scope.used() == ("python",)

    @invariant()
    def settings_are_those_of_the_model(self):
        if hasattr(self, "worlds"):
            assert torch.get_deterministic_debug_mode() == self.world.mode
            assert torch.backends.cudnn.benchmark == self.world.benchmark


Interleavings.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestInterleavings = Interleavings.TestCase
