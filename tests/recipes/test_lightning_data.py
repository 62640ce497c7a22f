"""Lightning saves the place of a seeded_loader: a run resumes exactly from any step."""

from __future__ import annotations

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from test_lightning import RestoreRandom, pytestmark  # noqa: F401
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

from seedscope import SeededDataset, seeded, seeded_loader
from small_data import SEED, Noisy, are_equal, mix
from small_training import BATCHES, Killed, network, optimizer, weights

EPOCHS = 4
EACH_FIVE_STEPS = {"every_n_train_steps": 5}
EACH_STEP = {"every_n_train_steps": 1}
EACH_EPOCH = {"save_on_train_epoch_end": True}


class Kill(lightning.Callback):
    """Kill the run before a batch of an epoch."""

    def __init__(self, epoch, batch):
        self.place = epoch, batch

    def on_train_batch_start(self, trainer, module, batch, index):
        if (trainer.current_epoch, index) == self.place:
            raise Killed


class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.network = network()
        self.batches = []  # all that it was trained with

    def training_step(self, batch, index):
        self.batches.append(batch.clone())
        return self.network(batch).square().mean()

    def configure_optimizers(self):
        return optimizer(self)


class Validated(Module):
    def __init__(self):
        super().__init__()
        self.validated = []

    def validation_step(self, batch, index):
        self.validated.append(batch.clone())


class Noted(Noisy):
    """Data that note which samples were drawn."""

    def __init__(self):
        super().__init__()
        self.drawn = []

    def __getitem__(self, index):
        self.drawn.append(index)
        return super().__getitem__(index)


def loader_of(data, workers=0):
    fork = "fork" if workers else None
    options = {"num_workers": workers, "multiprocessing_context": fork}
    return seeded_loader(data, SEED, batch_size=4, shuffle=True, collate_fn=mix, **options)


def fit(
    folder, save, *callbacks, seed=SEED, resume=None, workers=0, data=None, kind=Module, **loaders
):
    """Train inside a scope, and return the module."""
    loaders = loaders or {"train_dataloaders": loader_of(data or Noisy(), workers)}
    with seeded(seed):
        module = kind()
        checkpoint = ModelCheckpoint(folder, filename="last", **save)
        trainer = lightning.Trainer(
            max_epochs=EPOCHS,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
            callbacks=[RestoreRandom(), *callbacks, checkpoint],
        )
        trainer.fit(module, ckpt_path=resume, **loaders)
    return module


def resumed(folder, save, kill, workers):
    """Kill a run, resume it in a scope of another seed, and return the module."""
    with pytest.raises(Killed):
        fit(folder, save, kill, workers=workers)
    return fit(folder, save, seed=5, resume=folder / "last.ckpt", workers=workers)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that was not killed, without workers."""
    return fit(tmp_path_factory.mktemp("whole"), EACH_EPOCH)


def test_the_batches_are_the_loaders_own(whole):
    loader = loader_of(Noisy())
    expected = []
    for epoch in range(EPOCHS):
        loader.set_epoch(epoch)
        expected += loader
    assert are_equal(whole.batches, expected)


def test_each_epoch_has_another_order_without_a_call_of_set_epoch(tmp_path):
    data = Noted()
    fit(tmp_path, EACH_EPOCH, data=data)
    size = len(data)
    orders = [tuple(data.drawn[i : i + size]) for i in range(0, EPOCHS * size, size)]
    assert len({*orders}) == EPOCHS
    assert all(sorted(order) == [*range(size)] for order in orders)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_that_was_killed_in_an_epoch_ends_in_the_same_bits(tmp_path, whole, workers):
    module = resumed(tmp_path, EACH_FIVE_STEPS, Kill(2, 4), workers)
    assert are_equal(module.batches, whole.batches[15:])  # the step before the kill was lost
    assert weights(module) == weights(whole)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("save", [EACH_STEP, EACH_EPOCH], ids=["each step", "each epoch"])
def test_a_checkpoint_at_the_end_of_an_epoch_is_exact(tmp_path, whole, save, workers):
    module = resumed(tmp_path, save, Kill(2, 0), workers)
    assert are_equal(module.batches, whole.batches[2 * BATCHES :])
    assert weights(module) == weights(whole)


@pytest.mark.parametrize("killed", [(1, 4), (2, 0)], ids=["in an epoch", "at its end"])
def test_a_resumed_run_saves_the_right_place(tmp_path, killed):
    with pytest.raises(Killed):
        fit(tmp_path, EACH_STEP, Kill(*killed))
    last = tmp_path / "last.ckpt"
    with pytest.raises(Killed):
        fit(tmp_path, EACH_STEP, Kill(2, 2), seed=5, resume=last)
    saved = torch.load(last, weights_only=False)["loops"]["fit_loop"]["state_dict"]
    [place] = saved["combined_loader"]
    assert (place["epoch"], place["batches"]) == (2, 2)


class SetEpoch(lightning.Callback):
    """What the recipe says for a `batch_sampler`."""

    def on_train_epoch_start(self, trainer, module):
        trainer.train_dataloader.set_epoch(trainer.current_epoch)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_of_a_batch_sampler_resume_too(tmp_path, workers):
    def made():
        sampler = BatchSampler(RandomSampler(range(len(Noisy()))), 4, False)
        fork = "fork" if workers else None
        options = {"num_workers": workers, "multiprocessing_context": fork}
        return seeded_loader(Noisy(), SEED, batch_sampler=sampler, **options)

    loader, expected = made(), []
    for epoch in range(EPOCHS):
        loader.set_epoch(epoch)
        expected += loader
    whole = fit(tmp_path / "whole", EACH_EPOCH, SetEpoch(), train_dataloaders=made())
    assert are_equal(whole.batches, expected)
    with pytest.raises(Killed):
        fit(tmp_path, EACH_STEP, SetEpoch(), Kill(2, 4), train_dataloaders=made())
    more = {"resume": tmp_path / "last.ckpt", "train_dataloaders": made()}
    assert are_equal(
        fit(tmp_path, EACH_STEP, SetEpoch(), **more).batches, expected[2 * BATCHES + 4 :]
    )


def test_a_validation_is_the_same_in_each_epoch_under_a_plain_loader(tmp_path):
    dataset = SeededDataset(Noisy(), SEED)
    dataset.set_epoch(0)
    loaders = {"train_dataloaders": loader_of(Noisy()), "val_dataloaders": DataLoader(dataset, 4)}
    found = fit(tmp_path, EACH_EPOCH, kind=Validated, **loaders).validated[-EPOCHS * BATCHES :]
    first = found[:BATCHES]
    assert all(
        are_equal(found[i : i + BATCHES], first) for i in range(0, EPOCHS * BATCHES, BATCHES)
    )
