"""Samples do not depend on the process that loads them: with real DataLoader workers."""

from __future__ import annotations

import random
import types

import albumentations
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler, IterableDataset, Subset

from seedscope import SeededDataset, seeded, snapshot
from seedscope.data import drawing

SIZE = 10


def noise():
    return [
        random.random(),
        random.gauss(0, 1),
        np.random.rand(),
        np.random.standard_normal(),
        torch.rand(1).item(),
        np.random.default_rng().random(),
        random.Random().random(),
    ]


class Noisy(Dataset):
    def __len__(self):
        return SIZE

    def __getitem__(self, index):
        return torch.tensor([index, *noise()], dtype=torch.float64)


class Augmented(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        pipeline = albumentations.Compose(
            [albumentations.RandomCrop(16, 16), albumentations.GaussNoise(p=1)]
        )
        return pipeline(image=np.full((24, 24, 3), index, np.uint8))["image"]


class AugmentedOnce(Dataset):
    """One pipeline, with new generators for each sample."""

    def __init__(self):
        self.pipeline = albumentations.Compose(
            [albumentations.RandomCrop(16, 16), albumentations.GaussNoise(p=1)]
        )

    def __len__(self):
        return 4

    def __getitem__(self, index):
        self.pipeline.set_random_state(np.random.default_rng(), random.Random())
        return self.pipeline(image=np.full((24, 24, 3), index, np.uint8))["image"]


class Coins(Dataset):
    """A coin of NumPy and a coin of torch in each sample."""

    def __len__(self):
        return 64

    def __getitem__(self, index):
        return int(np.random.randint(2)), int(torch.randint(2, ()))


def collect(loader):
    """The samples by index."""
    rows = torch.cat([batch.reshape(-1, batch.shape[-1]) for batch in loader])
    return {int(row[0]): tuple(row[1:].tolist()) for row in rows}


@pytest.fixture(scope="module")
def expected():
    """Epochs 0 and 1, drawn one by one."""
    dataset = SeededDataset(Noisy(), 1029)
    epochs = []
    for epoch in (0, 1):
        dataset.set_epoch(epoch)
        epochs.append({i: tuple(dataset[i][1:].tolist()) for i in range(SIZE)})
    return epochs


def test_samples_differ_between_indices_epochs_and_seeds(expected):
    values = [value for epoch in expected for sample in epoch.values() for value in sample]
    assert len(set(values)) == len(values)
    assert tuple(SeededDataset(Noisy(), 1030)[0][1:].tolist()) != expected[0][0]


@pytest.mark.parametrize(
    ("workers", "context", "persistent", "batch", "prefetch", "shuffle"),
    [
        (0, None, False, 3, None, True),
        (0, None, False, None, None, False),
        (1, "fork", False, 4, 1, False),
        (2, "fork", False, 3, 2, True),
        (2, "fork", True, 1, 3, True),
        (4, "fork", True, 2, 1, False),
        (1, "spawn", False, 4, 2, True),
        (2, "spawn", True, 3, 1, False),
    ],
)
def test_the_samples_are_the_same_whoever_loads_them(
    expected, workers, context, persistent, batch, prefetch, shuffle
):
    dataset = SeededDataset(Noisy(), 1029)
    loader = DataLoader(
        dataset,
        batch_size=batch,
        shuffle=shuffle,
        num_workers=workers,
        multiprocessing_context=context,
        persistent_workers=persistent,
        prefetch_factor=prefetch,
        generator=torch.Generator().manual_seed(3),
    )
    for epoch in (0, 1, 0):
        dataset.set_epoch(epoch)
        assert collect(loader) == expected[epoch]


def test_the_rest_of_a_resumed_epoch_is_the_same(expected):
    dataset = SeededDataset(Noisy(), 1029)
    dataset.set_epoch(1)
    rest = DataLoader(
        Subset(dataset, range(6, SIZE)), 3, num_workers=2, generator=torch.Generator()
    )
    assert collect(rest) == {i: expected[1][i] for i in range(6, SIZE)}


def test_a_sample_is_the_same_whichever_rank_draws_it(expected):
    drawn = {}
    for rank in range(3):
        dataset = SeededDataset(Noisy(), 1029)
        sampler = DistributedSampler(dataset, num_replicas=3, rank=rank, seed=7)
        loader = DataLoader(dataset, 2, sampler=sampler, generator=torch.Generator())
        drawn.update(collect(loader))
    assert drawn == expected[0]


@pytest.mark.parametrize("kind", [Augmented, AugmentedOnce])
def test_albumentations_pipelines_are_covered(kind):
    def images(workers):
        dataset = SeededDataset(kind(), 1029)
        loader = DataLoader(dataset, None, num_workers=workers, generator=torch.Generator())
        return torch.stack([*loader])

    assert torch.equal(images(0), images(2))
    assert len(images(0).unique()) > 10


def test_the_main_process_keeps_the_callers_state_and_settings():
    dataset = SeededDataset(Noisy(), 1029)
    before = snapshot()
    torch.backends.cudnn.benchmark = True
    dataset[3]
    assert before.changed(snapshot()) == ("cudnn.benchmark",)
    before.restore()
    with seeded(5):
        dataset[3]
        got = random.random()
    assert got == random.Random(5).random()


@pytest.mark.parametrize("kind", [Dataset, IterableDataset])
def test_a_setting_that_a_sample_changes_stays_as_in_a_worker(kind):
    class Sets(kind):
        def __getitem__(self, index):
            torch.backends.cudnn.benchmark = not torch.backends.cudnn.benchmark
            return torch.rand(1)

        def __iter__(self):
            yield self[0]
            yield self[1]

    outer = snapshot()
    dataset = SeededDataset(Sets(), 1029)
    samples = iter(dataset) if kind is IterableDataset else iter([dataset[0]])
    next(samples)
    assert outer.changed(snapshot()) == ("cudnn.benchmark",)
    for _ in samples:
        assert outer.changed(snapshot()) == ()
    outer.restore()


def test_a_default_device_besides_the_cpu_changes_nothing(expected):
    with torch.device("meta"):
        dataset = SeededDataset(range(8), 1029)
        dataset.set_epoch(3)
        assert dataset.epoch == 3
        assert dataset[5] == 5


def test_indices_of_every_type_are_accepted():
    dataset = SeededDataset(Noisy(), 1029)
    last = dataset[SIZE - 1]
    assert torch.equal(dataset[-1][1:], last[1:])
    assert torch.equal(dataset[torch.tensor(SIZE - 1)], last)
    assert torch.equal(dataset[np.int64(SIZE - 1)], last)
    by_name = SeededDataset({"a": 1, ("b", 2): 3}, 1029)
    assert by_name["a"] == 1
    assert by_name["b", 2] == 3


def test_the_wrapped_dataset_is_an_attribute():
    inner = Noisy()
    dataset = SeededDataset(inner, 1029)
    assert dataset.dataset is inner
    assert dataset.seed == 1029
    assert len(dataset) == SIZE


@pytest.mark.parametrize("epoch", [-1, 2**63, 1.5, "1", None, True])
def test_epochs_are_integers_from_zero(epoch):
    dataset = SeededDataset(Noisy(), 1029)
    dataset.set_epoch(4)
    with pytest.raises((TypeError, ValueError), match="epoch must be"):
        dataset.set_epoch(epoch)
    assert dataset.epoch == 4


@pytest.mark.parametrize(
    ("dataset", "seed", "says"),
    [(None, 1, "expected a dataset"), (Noisy, 1, "expected a dataset"), (Noisy(), "1", "got '1'")],
)
def test_bad_input_is_refused(dataset, seed, says):
    with pytest.raises(TypeError, match=says):
        SeededDataset(dataset, seed)


def test_a_dataset_without_length_says_so_under_a_sampler():
    class Endless(Dataset):
        def __getitem__(self, index):
            return index

    with pytest.raises(TypeError, match="Endless has no length"):
        DataLoader(SeededDataset(Endless(), 1029), shuffle=True)


def test_thread_workers_are_refused(monkeypatch):
    info = types.SimpleNamespace(worker_method="thread", id=0)
    monkeypatch.setattr(drawing, "get_worker_info", lambda: info)
    with pytest.raises(RuntimeError, match='worker_method="multiprocessing"'):
        SeededDataset(Noisy(), 1029)[0]
    with pytest.raises(RuntimeError, match="needs worker processes"):
        iter(SeededDataset(Endless(), 1029))


class Endless(IterableDataset):
    def __iter__(self):
        yield 0


def test_numpy_and_torch_flip_coins_of_their_own():
    dataset = SeededDataset(Coins(), 1029)
    coins = [dataset[index] for index in range(64)]
    assert 16 < sum(int(ours == theirs) for ours, theirs in coins) < 48
