"""`SeededSampler`: an order that is a function of the seed and the epoch."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import DistributedSampler

from ..scope.scope import Scope
from ..seeds import check_seed, derive_seed
from ..support.remarks import level_of_the_user
from ..support.showing import shown
from .callers import is_prefetched, is_shared_out
from .dataset import SeededDataset
from .epochs import NEVER, aged, check_epoch, next_telling
from .held import Held
from .indices import Marking, SeededIndex, marked
from .options import SourcesAlone
from .orders import chain, is_sampler
from .ranks import check_ranks, group_rank
from .state import check_state

_CHUNK = 1024  # indices that are made at once


class SeededSampler(DistributedSampler[Any]):
    """A sampler whose order is a function of (seed, epoch), and can be resumed in mid-epoch.

    The indices carry the epoch, and tell repeated draws of an index apart: each draw gets a
    sample of its own from a `SeededDataset`. Ranks share the order as those of a
    `DistributedSampler` do: rank r of n has each n-th index, and the end is filled up from the
    beginning, or cut with `drop_last`.

    Args:
        source: a dataset, whose indices are drawn; or a sampler or a batch sampler, whose draws
            from any source, and from generators that it holds, follow from (seed, epoch).
        seed: an integer in [0, 2**64).
        shuffle: whether the indices of a dataset are shuffled: by default they are. A sampler
            has its own order.
        num_replicas, rank: the number of ranks, and this one. By default those of the process
            group, if it is initialised when the sampler is used, else one rank. With
            Accelerate, which gives each rank its share of the batches by itself,
            `num_replicas=1`.
        drop_last: whether to cut the end that does not fill all ranks.

    Raises:
        TypeError: `source` has no length, or an argument has a wrong type.
        ValueError: an argument has a wrong value.
    """

    num_replicas: int
    rank: int

    def __init__(
        self,
        source: Any,
        seed: int,
        *,
        shuffle: bool | None = None,
        num_replicas: int | None = None,
        rank: int | None = None,
        drop_last: bool = False,
    ) -> None:
        seed = check_seed(seed)
        self.is_sampler: bool = is_sampler(source)
        if self.is_sampler and shuffle is not None:
            raise ValueError(f"shuffle is for a dataset: the order is {_kind(source)}'s own")
        _length(source)
        if self.is_sampler and any(isinstance(one, DistributedSampler) for one in chain(source)):
            if num_replicas not in (None, 1):
                raise ValueError(
                    f"{_kind(source)} gives each rank its share: leave out num_replicas"
                )
            num_replicas = 1
        self._follows_group = num_replicas is None and rank is None
        rank, ranks = check_ranks(num_replicas, rank)
        super().__init__(source, ranks, rank, shuffle is not False, seed, drop_last)
        self.epoch: int = 0
        self.told_at: float = NEVER  # the number of the last call of set_epoch
        self._held = Held(source, "sampler") if self.is_sampler else None
        if self._held is not None:
            self._held.warn()
        self._has_drawn = False  # whether a sampler has drawn numbers for its last order
        self._digest = -1, "", 0  # the epoch that a sampler has drawn last, its order and length
        self._start = 0  # of the next pass
        self.yielded: int = 0  # in this epoch
        self._is_ahead = False  # whether workers draw later what the last pass has yielded

    @property
    def is_mixed(self) -> bool:
        """Whether epochs have orders of their own; of a sampler, whether it draws or is told."""
        if not self.is_sampler:
            return self.shuffle
        told = [one for one in chain(self.dataset) if callable(getattr(one, "set_epoch", None))]
        return self._has_drawn or any(getattr(one, "shuffle", True) for one in told)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next pass. Another epoch begins at its beginning.

        Raises:
            TypeError, ValueError: `epoch` is not an integer in [0, 2**63).
        """
        epoch = check_epoch(epoch)
        self.told_at = next_telling()
        if epoch != self.epoch:
            self.epoch, self._start, self.yielded = epoch, 0, 0

    def __len__(self) -> int:
        self._join_group()
        return len(range(self.rank, self._total(_length(self.dataset)), self.num_replicas))

    def __iter__(self) -> Iterator[Any]:
        self._join_group()
        if self.num_replicas > 1 and is_shared_out():
            raise RuntimeError(
                f"Accelerate and this sampler would both give each of {self.num_replicas} ranks "
                "its share, so that most of the data is never drawn: pass num_replicas=1, rank=0"
            )
        self._is_ahead = is_prefetched()
        self.yielded = self._start
        return self._pass()

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "told_at": aged(self.told_at)}

    def start_at(self, position: int) -> None:
        """Begin the next pass of this epoch at an element, instead of at the first."""
        self._start = self.yielded = position

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch and the place in it, ready for `torch.save`.

        The place is what the sampler has yielded. A plain loader with workers yields ahead of
        what the training consumes, with a warning: `seeded_loader` counts what was consumed.
        """
        if self._is_ahead:
            warnings.warn(
                "the sampler is ahead of the training, since the loader's workers prefetch: save "
                "the state of a seeded_loader instead, which counts what was consumed",
                RuntimeWarning,
                stacklevel=level_of_the_user(),
            )
        identity = self.identity(self.epoch)
        return {**identity, "epoch": self.epoch, "position": self.yielded}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Resume at the saved place: the next pass has the rest of the epoch.

        Raises:
            ValueError: the state is damaged, or of another seed, length or order. Nothing was
                changed.
        """
        epoch, position = check_state(state_dict, self.identity, "position", self.count)
        self.epoch = epoch
        self.start_at(position)

    def identity(self, epoch: int) -> dict[str, Any]:
        """Return what a state of the epoch must have in common with this sampler."""
        self._join_group()
        order = "shuffled" if self.shuffle else "in order"
        if self.is_sampler:
            if self._digest[0] != epoch:
                self._drawn(epoch)
            order = f"{_kind(self.dataset)} {self._digest[1]}"
        return {
            "format": 1,
            "seed": self.seed,
            "length": _length(self.dataset),
            "order": order,
            "num_replicas": self.num_replicas,
        }

    def count(self, epoch: int) -> int:
        """Return how many elements this rank draws in an epoch.

        A sampler's own length may be a guess, so that its order is drawn.
        """
        if not self.is_sampler:
            return len(self)
        self.identity(epoch)
        return len(range(self.rank, self._total(self._digest[2]), self.num_replicas))

    def _join_group(self) -> None:
        """Take the ranks of the process group, which may be younger than the sampler."""
        if self._follows_group and (group := group_rank()):
            self.rank, self.num_replicas = group

    def _total(self, length: int) -> int:
        """Return how many elements all ranks have, of an order of this length."""
        rest = length % self.num_replicas
        if not rest:
            return length
        return length - rest if self.drop_last else length - rest + self.num_replicas

    def _pass(self) -> Iterator[Any]:
        # At the first element: a loader with workers makes two iterators, and draws from one.
        epoch = self.epoch
        elements = self._of_sampler(epoch) if self.is_sampler else self._of_dataset(epoch)
        start, self._start = self._start, 0
        self.yielded = start
        first = self.rank + start * self.num_replicas
        for element in elements(first, self.num_replicas):
            self.yielded += epoch == self.epoch
            yield element

    def _of_dataset(self, epoch: int) -> Any:
        """Return what yields each n-th index of a dataset, without the ones before."""
        length = _length(self.dataset)
        total = self._total(length)
        order: Any = None
        if self.shuffle:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, "order", epoch))
            order = torch.randperm(length, generator=generator, device="cpu").numpy()

        def elements(first: int, step: int) -> Iterator[SeededIndex]:
            for begin in range(first, total, step * _CHUNK):
                places = np.arange(begin, min(total, begin + step * _CHUNK), step)
                repeats, numbers = np.divmod(places, length)  # the end is filled up
                indices = numbers if order is None else order[numbers]
                for index, repeat in zip(indices.tolist(), repeats.tolist(), strict=True):
                    yield marked(index, epoch, repeat)

        return elements

    def _of_sampler(self, epoch: int) -> Any:
        drawn = self._drawn(epoch)
        total = self._total(len(drawn))
        marking = Marking(epoch)
        found = [marking(drawn[place % len(drawn)]) for place in range(total)]

        def elements(first: int, step: int) -> Iterator[Any]:
            return islice(found, first, None, step)

        return elements

    def _drawn(self, epoch: int) -> list[Any]:
        """Return what the wrapped sampler draws in an epoch."""
        assert self._held is not None
        for one in chain(self.dataset):
            if callable(set_epoch := getattr(one, "set_epoch", None)):
                set_epoch(epoch)
        self._held.look()
        used = self._held.sources
        drawn = self._drawn_once(epoch)
        if self._held.has_others(used):
            drawn = self._drawn_once(epoch)  # it has made a generator that it keeps
        text = repr([one.tolist() if hasattr(one, "tolist") else one for one in drawn])
        self._digest = epoch, hashlib.sha256(text.encode()).hexdigest()[:16], len(drawn)
        return drawn

    def _drawn_once(self, epoch: int) -> list[Any]:
        assert self._held is not None
        seed = derive_seed(self.seed, "order", epoch)
        with Scope(seed, SourcesAlone(self._held.sources), opener=self) as scope:
            drawn = [*iter(cast(Any, self.dataset))]
            self._has_drawn = bool(scope.used())
        return drawn


def _kind(thing: Any) -> str:
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


def _length(source: Any) -> int:
    try:
        return len(source)
    except TypeError:
        if isinstance(source, SeededDataset):
            raise  # it names the dataset inside
        raise TypeError(
            f"expected a dataset or a sampler with a length, got {shown(source)}: the order of an "
            f"epoch needs one. Give {_kind(source)} a __len__, or pass a list"
        ) from None
