"""Accelerate saves some random states by itself; a RandomState adds the rest."""

from __future__ import annotations

from accelerate import Accelerator

from helpers import draw
from seedscope import RandomState, seeded
from small_training import loader, network, optimizer, weights


def accelerator_with(*registered):
    accelerator = Accelerator(cpu=True)
    accelerator.register_for_checkpointing(*registered)
    return accelerator


def draws_resumed(folder, *kinds):
    """Return the draws after a save, and those after loading in the same and in a fresh object."""
    with seeded(1029):
        accelerator = accelerator_with(*(kind() for kind in kinds))
        draw()
        accelerator.save_state(str(folder))
        expected = draw()
        draw()
        accelerator.load_state(str(folder))
        same = draw()
    with seeded(5):
        accelerator_with(*(kind() for kind in kinds)).load_state(str(folder))
        return expected, same, draw()


def test_a_registered_state_resumes_every_draw(tmp_path):
    expected, same, fresh = draws_resumed(tmp_path, RandomState)
    assert expected == same == fresh


def test_accelerate_alone_resumes_python_numpy_and_torch(tmp_path):
    expected, same, fresh = draws_resumed(tmp_path)
    for resumed in (same, fresh):
        assert resumed[:5] == expected[:5]
        # A registered device, and generators made without a seed.
        assert all(a != b for a, b in zip(resumed[5:], expected[5:], strict=True))


def train(folder, *, seed=1029, resume=None, epoch=0, batch=0):
    """Train from a batch of an epoch to the end of the fourth, and save after each batch."""
    with seeded(seed):
        model = network()
        accelerator = accelerator_with(RandomState())
        model, steps, batches = accelerator.prepare(model, optimizer(model), loader())
        if resume:
            accelerator.load_state(str(folder / resume))
        for now in range(epoch, 4):
            first = batch if now == epoch else 0
            rest = accelerator.skip_first_batches(batches, first) if first else batches
            for index, (inputs,) in enumerate(rest, first):
                accelerator.backward(model(inputs).square().mean())
                steps.step()
                steps.zero_grad()
                if not resume:
                    accelerator.save_state(str(folder / f"{now}-{index}"))
        return weights(model)


def test_a_run_resumes_exactly_at_the_end_of_an_epoch(tmp_path):
    whole = train(tmp_path)
    assert train(tmp_path, seed=5, resume="1-5", epoch=2) == whole


def test_a_run_does_not_resume_exactly_in_an_epoch(tmp_path):
    whole = train(tmp_path)
    assert train(tmp_path, seed=5, resume="1-2", epoch=1, batch=3) != whole
