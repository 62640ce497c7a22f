"""ignite: an Engine needs the random states, a DeterministicEngine the seed of the scope."""

from __future__ import annotations

import warnings

import pytest
import torch

from seedscope import RandomState, seeded
from small_training import BATCHES, loader, network, optimizer, weights

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", ".torch.jit.* is deprecated", DeprecationWarning)
    from ignite.engine import DeterministicEngine, Engine, Events
    from ignite.handlers import Checkpoint, DiskSaver

pytestmark = pytest.mark.usefixtures("the_outer_state_is_intact")

END_OF_EPOCH, IN_AN_EPOCH = 2 * BATCHES, 2 * BATCHES - 3


def train(kind, folder, *, at=None, seed=1029, random=True, workers=0):
    """Train for four epochs, and save after iteration `at`; or resume from what was saved."""
    with seeded(seed):
        model = network()
        steps = optimizer(model)

        def step(engine, batch):
            loss = model(batch[0]).square().mean()
            steps.zero_grad()
            loss.backward()
            steps.step()

        engine = kind(step)
        parts = {"model": model, "optimizer": steps, "engine": engine}
        if random:
            parts["random"] = RandomState()

        if at:
            save = Checkpoint(parts, DiskSaver(folder), filename_pattern="saved.pt")
            engine.add_event_handler(Events.ITERATION_COMPLETED(once=at), save)
        else:
            # A DeterministicEngine saves NumPy's state as an array.
            saved = torch.load(folder / "saved.pt", weights_only=kind is Engine)
            Checkpoint.load_objects(parts, saved)
        engine.run(loader(workers), max_epochs=4)
        return weights(model)


def is_exact(kind, folder, *, seed=5, at=END_OF_EPOCH, **options):
    whole = train(kind, folder, at=at, **options)
    return train(kind, folder, seed=seed, **options) == whole


@pytest.mark.parametrize("workers", [0, 1])
def test_an_engine_resumes_if_restored_before_its_run(tmp_path, workers):
    assert is_exact(Engine, tmp_path, workers=workers)


def test_an_engine_does_not_save_random_states(tmp_path):
    assert not is_exact(Engine, tmp_path, seed=1029, random=False)


def test_an_engine_does_not_resume_exactly_in_an_epoch(tmp_path):
    assert not is_exact(Engine, tmp_path, at=IN_AN_EPOCH)


@pytest.mark.parametrize("seed", [1029, 5])
def test_a_deterministic_engine_resumes_under_the_same_seed(tmp_path, seed):
    exact = is_exact(DeterministicEngine, tmp_path, seed=seed, random=False)
    assert exact == (seed == 1029)


def test_a_restored_state_makes_a_deterministic_engine_differ(tmp_path):
    assert not is_exact(DeterministicEngine, tmp_path, seed=1029)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_deterministic_engine_needs_workers_in_an_epoch(tmp_path, workers):
    options = {"seed": 1029, "at": IN_AN_EPOCH, "random": False, "workers": workers}
    assert is_exact(DeterministicEngine, tmp_path, **options) == bool(workers)
