"""`SeededDataset`: samples that do not depend on the process that draws them."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, ClassVar

from torch.utils.data import Dataset, IterableDataset, Subset

from ..seeds import check_seed
from ..support.pickles import reduce_publicly
from ..support.showing import shown
from .drawing import Drawing, running
from .epochs import check_epoch, next_telling
from .held import Held
from .indices import count_of, epoch_of, keys_of, plain
from .search import is_plain
from .transparent import Transparent


class SeededDataset(Transparent, Dataset[Any]):
    """A dataset whose sample `i` of epoch `e` depends only on (seed, e, i).

    A sample is the same with any number of workers, forked or spawned, persistent or not,
    with any batch size and prefetch factor, shuffled or not, after resuming in mid-epoch,
    and on any rank of a DistributedSampler. This covers the draws of the wrapped dataset
    from `random` and the global generators of NumPy and torch, from generators that are
    created without a seed for each sample, and from generators that the dataset holds, as
    the transforms of albumentations and MONAI do: each gets a seed of its own for each
    sample. A dataset that reads a whole batch in `__getitems__` is seeded for each batch.

    The attributes and methods of the wrapped dataset are reached through this one, and
    `isinstance` is true for the classes of both.

    A worker process belongs to the loader: its sources are seeded for each sample and not
    restored. In the main process, the caller's random state and the held generators are
    restored after each sample. Determinism settings are not: a setting that a sample changes
    stays changed.

    An index that a plain sampler draws twice in an epoch gives the same sample twice, with a
    warning. A `SeededSampler` tells the draws apart. The `collate_fn` of a plain loader is not
    seeded. `seeded_loader` covers order, samples and `collate_fn`.

    An iterable dataset has no index, so it is seeded for each (seed, epoch, rank, worker). Its
    data repeats with the same number of workers and ranks, and differs with another number.

    Args:
        dataset: a map-style dataset or an `IterableDataset`; available as `.dataset`.
        seed: an integer in [0, 2**64).
        exclude: paths as in `generators`, of generators to leave alone, such as one from which
            the dataset draws a split. A path also stands for what lies below it.

    Raises:
        TypeError: `dataset` is not a dataset, or `seed` is not an integer.
        ValueError: `seed` is out of range, or `exclude` has a path that leads to no generator.
        RuntimeError: a thread worker draws a sample; threads share the random sources.
    """

    _OWN: ClassVar[frozenset[str]] = frozenset({"dataset", "seed", "_drawing"})

    seed: int
    _drawing: Drawing

    def __new__(cls, dataset: Any = None, seed: Any = None, *, exclude: Any = ()) -> Any:
        # The loader distinguishes the two kinds by their class.
        is_iterable = isinstance(dataset, IterableDataset)
        return object.__new__(SeededIterableDataset if is_iterable else cls)

    def __init__(self, dataset: Any, seed: int, *, exclude: Iterable[str] = ()) -> None:
        self.seed = check_seed(seed)
        if isinstance(dataset, type) or not (
            hasattr(dataset, "__getitem__") or isinstance(dataset, IterableDataset)
        ):
            raise TypeError(f"expected a dataset, got {shown(dataset)} ({type(dataset).__name__})")
        self._drawing = Drawing(dataset, self.seed, Held(dataset, "dataset", exclude))
        self.dataset = dataset

    @property
    def epoch(self) -> int:
        """The epoch that was set last; 0 at first."""
        return self._drawing.shared.epoch

    @property
    def generators(self) -> tuple[str, ...]:
        """The paths of the generators that the dataset holds and that are seeded for each sample.

        They are searched at the first sample of each epoch in each process: in attributes, slots,
        containers, closures, partials, class attributes, the user's modules, and globals that
        methods name or import.
        """
        return tuple(self._drawing.held.names())

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the samples drawn from now on.

        Call `set_epoch` before each epoch's loop, as with a `DistributedSampler`. The
        change reaches persistent workers without a restart. A `set_epoch` of the wrapped
        dataset is called, too.

        Args:
            epoch: an integer in [0, 2**63).

        Raises:
            TypeError: `epoch` is not an integer.
            ValueError: `epoch` is out of range.
        """
        self._drawing.set_epoch(check_epoch(epoch))
        self._drawing.told_at = next_telling()

    def __len__(self) -> int:
        try:
            return len(self.dataset)
        except TypeError:
            if hasattr(type(self.dataset), "__len__"):
                raise  # from inside of it
            raise TypeError(
                f"{type(self.dataset).__name__} has no length, which shuffling and most samplers "
                "need: give the dataset a __len__, or the loader a sampler that needs none"
            ) from None

    def __getitem__(self, index: Any) -> Any:
        return self._drawn(index, partial(operator.getitem, self.dataset))

    @property
    def __getitems__(self) -> Callable[[list[Any]], Any] | None:
        """A function that reads a batch, if the wrapped dataset has one; else None.

        That of a `Subset` reads sample by sample, unless the dataset inside has one.
        """
        inner = self.dataset
        while type(inner) is Subset:
            inner = inner.dataset
        if not callable(getattr(inner, "__getitems__", None)):
            return None
        return lambda indices: self._drawn([*indices], self._read)

    def _read(self, indices: list[Any]) -> Any:
        batch = self.dataset.__getitems__(indices)
        # Samples that are drawn later would have no seed.
        return [*batch] if isinstance(batch, Iterator) else batch

    def _drawn(self, index: Any, draw: Callable[[Any], Any]) -> Any:
        drawing = self._drawing
        carried, repeat = epoch_of(index), getattr(index, "repeat", 0)
        epoch = drawing.shared.epoch if carried is None else carried
        keys = keys_of(index, self)
        is_inside = bool(running)
        if is_inside and carried is None:
            # A dataset around, such as a Subset, has given the index alone.
            epoch, repeat = epoch or running[0].epoch, running[0].repeat
            keys = (*keys, "repeat", repeat) if repeat else keys
        sample = drawing.sample(epoch, keys, lambda: draw(plain(index)), repeat)
        if not is_inside:
            drawing.repeats.note_draw(epoch, self, count_of(index))
            if carried is None:
                drawing.repeats.note_index(epoch, keys)
            else:
                drawing.repeats.note_overruled(carried)
        return sample

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if "_drawing" in vars(self) and not is_plain(value):
            self._drawing.begun = None  # it may have another generator now

    def __copy__(self) -> Any:
        """Return a dataset with an epoch of its own around the same wrapped dataset."""
        copied = object.__new__(type(self))
        vars(copied).update(vars(self), _drawing=copy.copy(self._drawing))
        return copied

    def __reduce_ex__(self, protocol: Any) -> Any:
        return reduce_publicly(self, SeededDataset, {**vars(self)}, {*vars(self)})

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)


class SeededIterableDataset(SeededDataset, IterableDataset[Any]):
    """The class of `SeededDataset(dataset, seed)` for an iterable dataset; see there."""

    def __iter__(self) -> Iterator[Any]:
        return self._drawing.samples(self.epoch)
