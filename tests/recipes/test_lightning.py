"""Lightning: a run that was killed and resumed ends in the bits of a run that was not."""

from __future__ import annotations

import inspect

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset

from seedscope import RandomState, seeded
from small_training import INPUTS, RECIPES, Killed, loader, network, optimizer, weights

pytestmark = [
    pytest.mark.usefixtures("the_outer_state_is_intact"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
    pytest.mark.filterwarnings("ignore:GPU available but not used:UserWarning"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* is not empty:UserWarning"),
]


class RestoreRandom(lightning.Callback):
    def __init__(self):
        self.random = RandomState()

    def state_dict(self):
        return self.random.state_dict()

    def load_state_dict(self, state_dict):
        self.random.load_state_dict(state_dict)


class RestoreLate(RestoreRandom):
    """Restore in a hook that runs when the loader's iterator has been made."""

    loaded = None

    def load_state_dict(self, state_dict):
        self.loaded = state_dict

    def on_train_start(self, trainer, module):
        if self.loaded:
            self.random.load_state_dict(self.loaded)


class KillInThirdEpoch(lightning.Callback):
    def on_train_batch_start(self, trainer, module, batch, index):
        if trainer.current_epoch == 2 and index == 3:
            raise Killed


class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.network = network()

    def training_step(self, batch, index):
        return self.network(batch[0]).square().mean()

    def validation_step(self, batch, index):
        torch.rand(3)  # a validation that draws

    def configure_optimizers(self):
        return optimizer(self)


def fit(folder, *callbacks, seed=1029, resume=None, workers=0, save=True, **options):
    """Train for four epochs inside a scope, and return the weights."""
    with seeded(seed):
        module = Module()
        trainer = lightning.Trainer(
            max_epochs=4,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
            callbacks=[
                *callbacks,
                ModelCheckpoint(folder, filename="last", save_on_train_epoch_end=save),
            ],
            **options,
        )
        validation = DataLoader(TensorDataset(INPUTS), 4)
        trainer.fit(module, loader(workers), validation, ckpt_path=resume)
        return weights(module)


def is_exact(folder, callback, **options):
    """Return whether a killed run, resumed in a scope of another seed, ends in the same bits."""
    whole = fit(folder / "whole", callback(), **options)
    with pytest.raises(Killed):
        fit(folder / "killed", callback(), KillInThirdEpoch(), **options)
    checkpoint = folder / "killed" / "last.ckpt"
    return fit(folder / "killed", callback(), seed=5, resume=checkpoint, **options) == whole


@pytest.mark.parametrize("workers", [0, 2])
def test_a_restore_when_the_callback_is_loaded_is_exact(tmp_path, workers):
    assert is_exact(tmp_path, RestoreRandom, workers=workers)


def test_a_run_without_the_callback_does_not_resume_exactly(tmp_path):
    assert not is_exact(tmp_path, lightning.Callback)


def test_a_restore_in_on_train_start_is_late(tmp_path):
    assert not is_exact(tmp_path, RestoreLate)


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended:UserWarning")
@pytest.mark.parametrize("when", [{"check_val_every_n_epoch": 2}, {"val_check_interval": 0.5}])
def test_a_checkpoint_is_exact_at_the_end_of_an_epoch_alone(tmp_path, when):
    assert is_exact(tmp_path / "epoch", RestoreRandom, save=True, **when)
    # By default Lightning saves after such a validation.
    assert not is_exact(tmp_path / "validation", RestoreRandom, save=None, **when)


def test_the_page_shows_the_callback():
    assert inspect.getsource(RestoreRandom) in RECIPES.read_text()
