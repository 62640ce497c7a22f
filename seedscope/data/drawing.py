"""How one process draws the samples of a `SeededDataset`."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Generator, Iterator
from functools import partial
from multiprocessing.context import get_spawning_popen
from typing import Any, NamedTuple

from torch.utils.data import get_worker_info

from ..scope.scope import Scope
from ..scope.seeded import Seeded
from ..seeds import derive_seed, deriver
from ..sources.base import Source
from ..sources.registry import running_sources
from .callers import is_shared_out
from .epochs import NEVER, aged, listeners
from .held import Held
from .options import SourcesAlone, seed_process
from .ranks import group_rank
from .repeats import Repeats, have_drawn
from .shared import DREW, SET, TOLD_HELD, Shared

# A process looks at so many first samples and batches, and then at each 16th: do they draw
# numbers? A look takes 0.1 ms.
_LOOKS = 16


class Running(NamedTuple):
    """A sample, or a batch, that is being drawn.

    Attributes:
        epoch: its epoch.
        repeat: how often the epoch has drawn its index before.
        seed: the seed from which it draws.
        shared: what the dataset that draws it shares with other processes.
    """

    epoch: int
    repeat: int
    seed: int
    shared: Shared


#: What is being drawn in this process, one in another.
running: list[Running] = []

_END = object()


class Failed:
    """An error in the place of a sample. It is taken out: its traceback refers to who holds it."""

    def __init__(self, error: BaseException) -> None:
        self._errors = [error]
        self.take: Callable[[], BaseException] = self._errors.pop


class Steps:
    """The samples of an iterable dataset, which may go on after an error."""

    def __init__(self, samples: Generator[Any]) -> None:
        self._samples = samples
        self.close: Callable[[], Any] = samples.close

    def __iter__(self) -> Steps:
        return self

    def __next__(self) -> Any:
        sample = next(self._samples)
        if type(sample) is not Failed:
            return sample
        raise sample.take()


class Drawing:
    """How one process draws the samples of a dataset: seeds the sources, and draws.

    Attributes:
        held: the generators that the dataset holds.
        shared: what the process shares with others.
        last_seed: the seed of the sample that was drawn last, which the batch's follows from.
        begun: the process and the epoch in which it draws; None before the first sample.
        told_at: the number of the last call of the dataset's own set_epoch.
    """

    told_at: float = NEVER
    _rank_of_parent: int = 0

    def __init__(self, dataset: Any, seed: int, held: Held) -> None:
        self.held: Held = held
        self.shared: Shared = Shared()
        self.last_seed: int = seed
        self._dataset, self._seed = dataset, seed
        self._forget()
        self._tell()

    def __getstate__(self) -> dict[str, Any]:
        kept = {
            name: vars(self)[name] for name in ("held", "shared", "last_seed", "_dataset", "_seed")
        }
        # A worker that is being spawned knows no process group.
        is_spawning = get_spawning_popen() is not None
        rank, _ = (is_spawning and group_rank()) or (0, 1)
        return {**kept, "told_at": aged(self.told_at), "_rank_of_parent": rank}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._forget()

    def __copy__(self) -> Drawing:
        copied = object.__new__(Drawing)
        copied.__setstate__({**self.__getstate__(), "shared": copy.copy(self.shared)})
        return copied

    def _forget(self) -> None:
        self.begun: tuple[int, int] | None = None  # the process and the epoch
        self._derive: Callable[..., int] = deriver(self._seed)
        self._sources: tuple[Source, ...] = ()  # those of a worker
        self._options = SourcesAlone()
        self._looks = 0
        self._is_settled = False  # whether a sample of the epoch was drawn and looked at
        self._batches = [0]  # that were made of the pass that has drawn last
        self.repeats: Repeats = Repeats(self.shared)

    def sample(
        self, epoch: int, keys: tuple[int | str, ...], draw: Callable[[], Any], repeat: int = 0
    ) -> Any:
        """Return what `draw` returns, with the sources seeded for the keys."""
        self._begin(epoch)
        seed = self._derive(*keys)
        while any(around.seed == seed for around in running):
            seed = derive_seed(seed, "inside")  # of the same dataset, or of one with an equal seed
        sample = Running(epoch, repeat, seed, self.shared)
        result = self._seeded(sample, draw)
        if not self._is_settled:
            if self.held.has_others(self._options.held):
                self._use_generators()
                # The sample has made a generator that the dataset keeps. In another process this
                # sample may not be the first one, and finds the generator there.
                result = self._seeded(sample, draw)
            else:
                self._tell()
            self._is_settled = True
        self.last_seed, self._batches = seed, [0]
        return result

    def samples(self, epoch: int) -> Iterator[Any]:
        """Return an iterator of an iterable dataset, seeded for this rank and worker.

        Inside of another sample, it is seeded for that one.
        """
        if running:
            epoch = epoch or running[0].epoch
        self._begin(epoch)
        worker = get_worker_info()
        keys = ("worker", 0 if worker is None else worker.id, *self._rank_keys())
        seed = self._derive("inside", running[-1].seed) if running else self._derive(*keys)
        place = Running(epoch, 0, seed, self.shared)
        if in_worker() and not running:
            seed_process(self._sources, seed)
            return Steps(self._iterate(place, is_alone=True))
        return Steps(Seeded(seed, self._options)(Drawing._iterate)(self, place, not running))

    def _rank_keys(self) -> tuple[int | str, ...]:
        """Return the keys of a rank other than 0, unless Accelerate gives each its share."""
        rank, _ = group_rank() or (self._rank_of_parent if in_worker() else 0, 1)
        return ("rank", rank) if rank and not is_shared_out() else ()

    def batch(self, make: Callable[[], Any], options: SourcesAlone, again: bool = False) -> Any:
        """Return what `make` makes of the samples that were drawn last, maybe once more."""
        self._batches[0] += not again
        seed = derive_seed(self.last_seed, "batch", self._batches[0])
        with Scope(seed, options, opener=self):
            batch = _inside(Running(0, 0, seed, self.shared), make)
            self._look_at_draws(seed, options)
        return batch

    def _seeded(self, sample: Running, draw: Callable[[], Any]) -> Any:
        """Draw with the sources seeded. A draw in a worker is restored inside another one alone."""
        if not in_worker() or running:
            with Scope(sample.seed, self._options, opener=self):
                return self._run(sample, draw)
        seed_process(self._sources, sample.seed)
        return self._run(sample, draw)

    def _run(self, sample: Running, draw: Callable[[], Any]) -> Any:
        result = _inside(sample, draw)
        self._look_at_draws(sample.seed, self._options)
        return result

    def _iterate(self, place: Running, is_alone: bool) -> Generator[Any]:
        if is_alone:
            self.repeats.note_pass(place.epoch)
        samples, batches = _inside(place, partial(iter, self._dataset)), [0]
        while True:
            try:
                sample = _inside(place, partial(next, samples, _END))
            except BaseException as error:
                sample = Failed(error)  # the samples may go on after it, as without the seeds
            if sample is _END:
                return
            self.last_seed, self._batches = place.seed, batches
            self._look_at_draws(place.seed, self._options)
            yield sample

    def _look_at_draws(self, seed: int, options: SourcesAlone) -> None:
        """Look whether numbers are drawn from `seed`: at the first ones, later at some."""
        if not self.shared.has(DREW):
            self._looks += 1
            if self._looks > _LOOKS and self._looks % _LOOKS:
                return
            if have_drawn((*running_sources(), *options.held), seed):
                self.shared.add(DREW)
        for around in running:  # what is drawn inside does not show there
            if self.shared.has(DREW):
                around.shared.add(DREW)

    def _begin(self, epoch: int) -> None:
        """Get ready for an epoch in this process."""
        now = os.getpid(), epoch
        if self.begun == now:
            return
        if epoch or self.shared.has(SET):  # an index may carry what a sampler alone was told
            self.pass_on(epoch)
        self.held.look()
        self._use_generators()
        self._is_settled = False
        self._derive = deriver(self._seed, "sample", epoch)
        self.begun = now

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of all processes, and tell the dataset."""
        self.shared.set_epoch(epoch)
        self.pass_on(epoch)

    def pass_on(self, epoch: int) -> None:
        """Tell the dataset itself the epoch, or those inside of it."""
        for one in listeners(self._dataset):
            one.set_epoch(epoch)

    def _use_generators(self) -> None:
        """Seed what the last search has found from now on, and warn of the rest."""
        self._tell()
        self._options = SourcesAlone(self.held.sources)
        if in_worker():
            self._sources = (*running_sources(), *self.held.sources)

    def _tell(self) -> None:
        """Warn of what cannot be seeded, once for all processes."""
        if not self.shared.has(TOLD_HELD) and self.held.warn():
            self.shared.add(TOLD_HELD)


def _inside(place: Running, draw: Callable[[], Any]) -> Any:
    """Return what `draw` returns, which runs as the innermost sample."""
    depth = len(running)
    try:
        running.append(place)  # in the `try`: an interrupt may come after it
        return draw()
    finally:
        del running[depth:]


def in_worker() -> bool:
    """Return whether this is a loader's worker process.

    Raises:
        RuntimeError: a thread worker draws a sample; threads share the random sources.
    """
    worker = get_worker_info()
    if worker is not None and getattr(worker, "worker_method", None) == "thread":
        raise RuntimeError(
            "SeededDataset needs worker processes: thread workers share the random sources of "
            'this process. Create the DataLoader with worker_method="multiprocessing".'
        )
    return worker is not None
