"""Entropy for generators that are created without a seed inside a block."""

from __future__ import annotations

import hashlib
import importlib
import itertools
import os
import random
import secrets
import sys
from typing import Any, NamedTuple

from torch.utils.data import get_worker_info

from ..seeds import SEED_LIMIT, check_seed, derive_seed
from ..support.showing import shown
from .base import Source
from .watch import WATCH, Place


class UnseededState(NamedTuple):
    """The state of the entropy.

    Attributes:
        seed: the scope's seed.
        process: the pid of the process that entered the block.
        modules: the number of imported modules when the block began.
        numpy, python, scopes: the number of draws from each stream.
    """

    seed: int
    process: int
    modules: int
    numpy: int = 0
    python: int = 0
    scopes: int = 0


class _Entropy:
    """The entropy from which one block seeds its generators.

    A thread that draws while the block ends changes only this object, which the block has
    dropped.
    """

    def __init__(self, state: UnseededState) -> None:
        self.state = state
        self.counts: dict[str, Any] = {}  # a counter for each stream, created on demand


class Unseeded(Source):
    """Entropy for `np.random.default_rng()`, `SeedSequence()`, `random.Random()`, fresh scopes.

    Inside a scope, entropy comes from the scope's seed instead of the operating system.
    NumPy calls `secrets.randbits` through a name in its own module, which the watch replaces.
    Python asks the operating system in C, so the watch replaces `random.Random.seed`.
    `secrets`, `uuid`, `os.urandom` and `SystemRandom` are never changed.
    """

    name = "unseeded"

    def __init__(self) -> None:
        self._entropy: _Entropy | None = None

    def capture(self) -> UnseededState | bool:
        # None would mean that the source is absent.
        return False if self._entropy is None else self._entropy.state

    def seed(self, seed: int) -> None:
        self._entropy = _Entropy(UnseededState(seed, os.getpid(), len(sys.modules)))

    def resume(self, seed: int, state: UnseededState | bool) -> None:
        # Entered here and now: in a forked child, or after other modules were imported.
        here = os.getpid(), len(sys.modules)
        if isinstance(state, UnseededState) and state[1:3] != here:
            state = UnseededState(state.seed, *here, *state[3:])
        self.restore(state)

    def restore(self, state: UnseededState | bool) -> None:
        # A state captured in a block has no meaning outside of all blocks, where entropy comes
        # from the operating system.
        is_used = isinstance(state, UnseededState) and WATCH.is_on
        self._entropy = _Entropy(state) if is_used else None  # type: ignore[arg-type]

    def fingerprint(self) -> tuple[int, ...] | None:
        return None if self._entropy is None else self._entropy.state[3:]

    def encode(self, state: Any) -> list[int] | None:
        return [state.seed, *state[3:]] if state else None

    def decode(self, payload: Any) -> UnseededState:
        # Before the count of scopes was added, a state had two counts.
        is_list = isinstance(payload, (list, tuple)) and len(payload) in (3, 4)
        if not is_list or not all(type(n) is int and 0 <= n < SEED_LIMIT for n in payload):
            raise ValueError(f"expected a seed and three counts, got {shown(payload)}")
        return UnseededState(check_seed(payload[0]), os.getpid(), len(sys.modules), *payload[1:])

    def same(self, a: Any, b: Any) -> bool:
        # The process and the modules say where the state was captured.
        return bool(self._comparable(a) == self._comparable(b))

    def _comparable(self, state: Any) -> Any:
        return self.encode(state) if isinstance(state, UnseededState) else state

    def scope_seed(self) -> int:
        """Return the seed of a fresh scope, below 2**32 as that of `fresh_seed`."""
        return self._draw("scopes", 32)

    def functions(self) -> list[Place]:
        """Return the functions that ask for entropy, for the watch to replace."""
        # This may load numpy.random: the first scope takes that time, not the import. If Ctrl-C
        # interrupts the load, the package later lacks its modules as attributes.
        numpy_generators = importlib.import_module("numpy.random.bit_generator")
        return [
            (numpy_generators, "randbits", self._make_numpy_randbits),
            (random.Random, "seed", self._make_python_seed),
        ]

    def _make_numpy_randbits(self, original: Any) -> Any:
        def randbits(bits: int) -> int:
            return self._draw("numpy", bits)

        return randbits

    def _make_python_seed(self, original: Any) -> Any:
        def seed(generator: random.Random, a: Any = None, version: int = 2) -> None:
            if a is None and self._entropy is not None and not _made_by_standard_library():
                a = self._draw("python", 256)
            original(generator, a, version)

        return seed

    def _draw(self, stream: str, bits: int) -> int:
        entropy = self._entropy
        if entropy is None or _is_importing(entropy.state.modules):
            return secrets.randbits(bits)
        state = entropy.state
        seed = state.seed
        if state.process != os.getpid():
            worker = get_worker_info()
            if worker is None:
                return secrets.randbits(bits)  # or all processes of a pool would draw the same
            # A forked DataLoader worker: mix in its seed, so that workers draw different
            # numbers, and the same numbers whenever the loader has the same seed.
            seed = derive_seed(seed, worker.seed)
        # Separate streams: draws from Python's must not shift NumPy's. An atomic count
        # and no lock, since a finaliser or signal handler may draw in the middle of this.
        count = next(entropy.counts.setdefault(stream, itertools.count(getattr(state, stream))))
        entropy.state = state._replace(**{stream: count + 1})
        material = f"seedscope unseeded {seed} {stream} {count}".encode()
        number = int.from_bytes(hashlib.shake_128(material).digest((bits + 7) // 8), "big")
        return number >> -bits % 8


def _made_by_standard_library() -> bool:
    """Return whether the standard library creates this `random.Random`.

    `tempfile` and `multiprocessing` draw names from such generators. With the scope's
    entropy, names would be predictable and collide between processes with one seed.
    """
    frame = sys._getframe(2)
    while frame is not None and frame.f_globals.get("__name__") == "random":
        frame = frame.f_back  # type: ignore[assignment]
    module = "" if frame is None else str(frame.f_globals.get("__name__"))
    return module.partition(".")[0] in sys.stdlib_module_names


def _is_importing(modules: int) -> bool:
    """Return whether a module is being imported whose import began inside the block.

    A library creates its own generators once, at import. They outlive the block, and a
    second run of the block does not create them: they must not use its entropy.
    """
    frame: Any = sys._getframe(2)
    inner = None
    while frame is not None:
        if frame.f_globals.get("__name__") == "importlib._bootstrap" and inner is not None:
            name = inner.f_globals.get("__name__")
            if name != "importlib._bootstrap_external":
                names = list(sys.modules)
                return name in names and names.index(name) >= modules
        else:
            inner = frame
        frame = frame.f_back
    return False
