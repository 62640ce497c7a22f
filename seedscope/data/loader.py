"""`seeded_loader`: a DataLoader whose batches are a function of seed, epoch and position."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, cast

import torch
from torch.utils.data import DataLoader, IterableDataset, Sampler

from ..seeds import check_seed, derive_seed
from .collate import SeededCollate
from .dataset import SeededDataset, SeededIterableDataset
from .epochs import NEVER, listeners
from .held import check_paths
from .options import SeededStart
from .orders import FixedOrder, is_sampler
from .passes import Pass
from .ranks import group_rank
from .sampler import SeededSampler
from .state import check_state


class SeededLoader(DataLoader[Any]):
    """The loader that `seeded_loader` returns; see there."""

    # Not in an __init__: trainers make a loader anew from the arguments of DataLoader.
    _place = (0, 0)  # the epoch, and the batches of it that were consumed
    _resumes = False  # whether the next pass begins at the place
    _passes = 0  # that came to their end
    _latest: object = None  # the mark of the pass that began last

    @property
    def order(self) -> SeededSampler | None:
        """The sampler that draws the order; None for an iterable dataset."""
        for sampler in (self.batch_sampler, self.sampler):
            if isinstance(sampler, SeededSampler):
                return sampler
        return None

    @property
    def epoch(self) -> int:
        """The epoch of the next pass: what the loader or its dataset was told last."""
        order, dataset = self.order, self._dataset
        is_older = order is None or order.told_at < dataset._drawing.told_at
        return dataset.epoch if order is None or is_older else order.epoch

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next pass. Call it before the loop of each epoch.

        After `load_state_dict` the same epoch resumes at the saved place, and another one begins
        at its beginning.

        Raises:
            TypeError, ValueError: `epoch` is not an integer in [0, 2**63).
        """
        # The dataset follows at the next pass: one that is not at its end keeps its epoch.
        order = self.order
        (self._dataset if order is None else order).set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch and the number of batches that were consumed, for `torch.save`.

        A batch counts as consumed when the loop has received it, whatever the workers have
        prefetched. The state has less than 1 kB.
        """
        epoch, batches = self._place
        if epoch != self.epoch:
            epoch, batches = self.epoch, 0
        return {**self._identity(epoch), "epoch": epoch, "batches": batches}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Resume at the saved place: the next pass has exactly the rest of the epoch.

        The samples before it are not drawn again. An iterable dataset has no place: its batches
        are drawn again, and left out.

        Raises:
            ValueError: the state is damaged, or of another dataset's length, seed, order, batch
                size or, for an iterable dataset, number of workers. Nothing was changed.
        """
        epoch, batches = check_state(state_dict, self._identity, "batches", self._count)
        self.set_epoch(epoch)
        self._place, self._resumes = (epoch, batches), True
        self._latest = None  # a pass that has not ended counts no more

    def __iter__(self) -> Any:
        return Pass(self)

    def begin(self, begun: Pass) -> tuple[Iterator[Any], int, int]:
        """Begin a pass, and return its batches, its epoch, and the number of the first batch."""
        epoch, order, drawing = self.epoch, self.order, self._dataset._drawing
        is_told = order is not None and max(order.told_at, drawing.told_at) > NEVER
        if order is not None and (is_told or epoch != drawing.shared.epoch):
            if epoch != order.epoch:
                order.set_epoch(epoch)  # the dataset was told
            drawing.set_epoch(epoch)
        elif self._passes:
            found = listeners(self._dataset.dataset)
            follows = any(not issubclass(type(one), SeededDataset) for one in found)
            drawing.repeats.warn_of_epoch(follows or (order is not None and order.is_mixed))
        drawing.begun = None  # the dataset may have other generators than in the last pass
        start = self._place[1] if self._resumes and self._place[0] == epoch else 0
        self._resumes, self._place = False, (epoch, start)
        if order is not None:
            order.start_at(start * (self.batch_size or 1))
        # The seeds of the workers: what they draw before the first sample.
        self.generator.manual_seed(derive_seed(self._dataset.seed, "workers", epoch))
        self._latest = begun.mark
        try:
            batches = super().__iter__()
            for _ in range(start if order is None else 0):
                _leave_out(batches)
        except BaseException as error:
            self._resumes = start > 0  # the next try begins there, too
            if isinstance(error, StopIteration):
                raise ValueError(f"the epoch has ended before batch {start}") from None
            raise
        return batches, epoch, start

    def count(self, one: Pass, epoch: int, number: int) -> None:
        """Count the batches that a pass has handed over, if it is the one that began last."""
        if self._latest is one.mark:
            self._place = (epoch, number)

    def _count(self, epoch: int) -> int | None:
        """Return the number of batches of an epoch; None of an iterable dataset."""
        if self.order is None:
            return None
        elements, size = self.order.count(epoch), self.batch_size or 1
        return elements // size if self.drop_last else -(-elements // size)

    @property
    def _dataset(self) -> SeededDataset:
        dataset: Any = self.dataset
        return cast(SeededDataset, dataset)

    def _identity(self, epoch: int) -> dict[str, Any]:
        """Return what a state must have in common with this loader."""
        own = {"batch_size": self.batch_size, "drop_last": self.drop_last}
        if (order := self.order) is None:
            _, ranks = group_rank() or (0, 1)
            kind = {"order": "of an iterable dataset", "num_workers": self.num_workers}
            own["num_replicas"] = ranks
            return {"format": 1, "seed": self._dataset.seed, **kind, **own}
        return {**order.identity(epoch), **own}


def _leave_out(batches: Iterator[Any]) -> None:
    """Draw a batch that was consumed, or that has raised when it was drawn first."""
    try:
        next(batches)
    except StopIteration:
        raise
    except Exception:
        return  # it counts for the place, as it did then


def seeded_loader(
    dataset: Any,
    seed: int,
    *,
    batch_size: int | None = 1,
    shuffle: bool = False,
    sampler: Sampler[Any] | Iterable[Any] | None = None,
    batch_sampler: Sampler[Any] | Iterable[Any] | None = None,
    num_workers: int = 0,
    collate_fn: Callable[[Any], Any] | None = None,
    drop_last: bool = False,
    num_replicas: int | None = None,
    rank: int | None = None,
    exclude: Iterable[str] = (),
    **options: Any,
) -> SeededLoader:
    """Return a DataLoader whose every batch is a function of (seed, epoch, position).

    This covers the order, the samples as in `SeededDataset`, the `collate_fn`, and what workers
    draw before their first sample. The batches are the same with any number of workers, forked
    or spawned, persistent or not, and after a stop in mid-epoch. An iterable dataset has no order:
    its batches depend on the numbers of workers and ranks, each of which must take its own share
    of the data (`torch.utils.data.get_worker_info`, `torch.distributed.get_rank`).

    Call `set_epoch(epoch)` before the loop of each epoch. A checkpoint keeps `state_dict()`, and
    `load_state_dict` resumes at the next batch.

    Args:
        dataset: a map-style or an iterable dataset, or a `SeededDataset` of the same seed.
        seed: an integer in [0, 2**64).
        batch_size: as for `DataLoader`; None for samples without a batch.
        shuffle: whether each epoch has an order of its own; else that of the dataset.
        sampler: an order of its own, or a list of indices. What a sampler draws follows from
            (seed, epoch), and an index that is drawn again gets another sample.
        batch_sampler: as `sampler`, for lists of indices.
        num_workers: as for `DataLoader`.
        collate_fn: as for `DataLoader`. What it draws follows from the batch.
        drop_last: as for `DataLoader`.
        num_replicas: the number of ranks, as for `SeededSampler`.
        rank: this rank, as for `SeededSampler`.
        exclude: paths of generators to leave alone, as for `SeededDataset`; those of the
            `collate_fn` begin with it: `["collate_fn.rng"]`.
        options: other arguments of `DataLoader`, besides `generator`.

    Raises:
        TypeError: the dataset has no length, or an argument has a wrong type.
        ValueError: arguments contradict each other. No worker was started.
    """
    seed = check_seed(seed)
    _check(options)
    check_paths(exclude)
    mixed = [path for path in exclude if collate_fn is not None and path.startswith("collate_fn")]
    data = _seeded(dataset, seed, [path for path in exclude if path not in mixed])
    own = [batch_size != 1 and "batch_size", drop_last and "drop_last"]
    orders = {"shuffle": shuffle, "sampler": sampler is not None}
    orders["batch_sampler"] = batch_sampler is not None
    given = [name for name, is_given in orders.items() if is_given]
    shard: Any = {"num_replicas": num_replicas, "rank": rank}
    given_ranks = [name for name, one in shard.items() if one is not None]
    if isinstance(data, IterableDataset) and (given or given_ranks):
        names = ", ".join(given + given_ranks)
        raise ValueError(
            f"an iterable dataset decides its order and each rank's share in its __iter__: leave "
            f"out {names}"
        )
    clash = given + [name for name in own if name and batch_sampler is not None]
    if len(clash) > 1:
        raise ValueError(f"{' and '.join(clash)} contradict each other: pass one of them")
    how: dict[str, Any] = {"batch_size": batch_size, "drop_last": drop_last}
    if batch_sampler is not None:
        how = {"batch_sampler": SeededSampler(_as_sampler(batch_sampler), seed, **shard)}
    elif sampler is not None:
        how["sampler"] = SeededSampler(_as_sampler(sampler), seed, **shard)
    elif not isinstance(data, IterableDataset):
        how["sampler"] = SeededSampler(data, seed, shuffle=bool(shuffle), **shard)
    if collate_fn is not None:
        how["collate_fn"] = SeededCollate(collate_fn, data._drawing, mixed)
    if (start := options.pop("worker_init_fn", None)) is not None:
        how["worker_init_fn"] = SeededStart(start, data._drawing.held)
    generator = torch.Generator()
    loader = SeededLoader(data, num_workers=num_workers, generator=generator, **how, **options)
    if loader.dataset is not data:
        raise TypeError(
            f"a DataLoader hides {type(dataset).__name__} behind {type(loader.dataset).__name__}, "
            "whose epoch cannot be set: pass a Dataset or an IterableDataset"
        )
    return loader


def _check(options: dict[str, Any]) -> None:
    """Refuse what a DataLoader takes besides."""
    if "generator" in options:
        raise TypeError("seeded_loader takes no generator: order and workers follow from the seed")
    if options.get("in_order") is False:
        raise ValueError("seeded_loader keeps the order of the batches: leave out in_order=False")


def _seeded(dataset: Any, seed: int, exclude: Iterable[str]) -> SeededDataset:
    if type(dataset) not in (SeededDataset, SeededIterableDataset):
        made: SeededDataset = SeededDataset(dataset, seed, exclude=exclude)
        return made
    if dataset.seed != seed:
        raise ValueError(
            f"the SeededDataset has seed {dataset.seed}: pass that seed instead of {seed}, or pass "
            "the dataset inside"
        )
    if exclude:
        raise ValueError(
            f"exclude={exclude} belongs to the SeededDataset: pass it there, or pass the dataset "
            "inside"
        )
    wrapped: SeededDataset = dataset
    return wrapped


def _as_sampler(sampler: Any) -> Any:
    return sampler if is_sampler(sampler) else FixedOrder(sampler)
