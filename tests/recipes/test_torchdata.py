"""torchdata: a StatefulDataLoader draws the batches of a seeded_loader, and resumes exactly."""

from __future__ import annotations

import io

import pytest
import torch
from torchdata.stateful_dataloader import StatefulDataLoader

from seedscope import SeededDataset, SeededSampler, seeded, seeded_loader
from small_data import SEED, Noisy, are_equal, mix
from small_training import BATCHES

pytestmark = pytest.mark.usefixtures("the_outer_state_is_intact")


def stateful_loader(workers=0, **options):
    data = Noisy()
    return StatefulDataLoader(
        SeededDataset(data, SEED),
        sampler=SeededSampler(data, SEED),
        batch_size=4,
        num_workers=workers,
        multiprocessing_context="fork" if workers else None,
        generator=torch.Generator(),
        **options,
    )


@pytest.fixture(scope="module")
def expected():
    """The batches of four epochs of a seeded_loader."""
    loader = seeded_loader(Noisy(), SEED, batch_size=4, shuffle=True)
    epochs = []
    for epoch in range(4):
        loader.set_epoch(epoch)
        epochs.append([*loader])
    return epochs


def saved_and_loaded(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("persistent", [False, True])
def test_the_batches_are_those_of_a_seeded_loader(expected, workers, persistent):
    loader = stateful_loader(workers, persistent_workers=persistent and workers > 0)
    for epoch in range(4):
        loader.sampler.set_epoch(epoch)
        assert are_equal([*loader], expected[epoch])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("consumed", [0, 1, 4, BATCHES])
def test_a_stopped_epoch_resumes_with_exactly_the_rest(expected, workers, consumed):
    stopped = stateful_loader(workers)
    stopped.sampler.set_epoch(1)
    batches = iter(stopped)
    assert are_equal([next(batches) for _ in range(consumed)], expected[1][:consumed])
    state = saved_and_loaded(stopped.state_dict())

    resumed = stateful_loader(workers)
    resumed.load_state_dict(state)
    assert are_equal([*resumed], expected[1][consumed:])
    for epoch in (2, 3):
        resumed.sampler.set_epoch(epoch)
        assert are_equal([*resumed], expected[epoch])


def test_snapshots_of_every_third_batch_resume_too(expected):
    stopped = stateful_loader(2, snapshot_every_n_steps=3)
    batches = iter(stopped)
    for _ in range(4):
        next(batches)
    resumed = stateful_loader(2, snapshot_every_n_steps=3)
    resumed.load_state_dict(stopped.state_dict())
    assert are_equal([*resumed], expected[0][4:])


def test_a_collate_fn_that_draws_needs_a_seeded_loader():
    def batches(seed):
        with seeded(seed):
            return [*stateful_loader(collate_fn=mix)]

    def seeded_batches(seed):
        with seeded(seed):
            return [*seeded_loader(Noisy(), SEED, batch_size=4, shuffle=True, collate_fn=mix)]

    assert not are_equal(batches(5), batches(6))
    assert are_equal(seeded_batches(5), seeded_batches(6))
