"""Hugging Face: the Trainer seeds itself, so that it needs the seed of the scope."""

from __future__ import annotations

import os
from unittest import mock

import pytest
import torch
from transformers import Trainer, TrainingArguments

from seedscope import derive_seed, seeded, snapshot
from small_training import BATCHES, INPUTS, network, weights

pytestmark = pytest.mark.usefixtures("the_outer_state_is_intact")

DATA = [{"x": x, "labels": x.sum(0, keepdim=True)} for x in INPUTS]


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.network = network()

    def forward(self, x, labels):
        return {"loss": (self.network(x) - labels).square().mean()}


def trainer_in(folder, model, **options):
    arguments = TrainingArguments(
        str(folder),
        num_train_epochs=4,
        per_device_train_batch_size=4,
        save_strategy="steps",
        save_steps=3,
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        **options,
    )
    return Trainer(model, arguments, train_dataset=DATA)


def train(folder, scope, *, resume=None, **options):
    """Train a model that is the same under each seed, inside a scope."""
    with seeded(1):
        model = Model()
    with seeded(scope) as scope:
        seed = {} if options.pop("bare", False) else {"seed": scope.seed}
        trainer_in(folder, model, **{**seed, **options}).train(resume_from_checkpoint=resume)
    return weights(model)


def test_a_trainer_ignores_the_seed_around_it(tmp_path):
    assert train(tmp_path, 7, bare=True) == train(tmp_path, 8, bare=True)


def test_a_trainer_follows_the_scopes_seed_that_it_gets(tmp_path):
    first = train(tmp_path, 7)
    assert first == train(tmp_path, 7)
    assert first != train(tmp_path, 8)


def test_weights_made_before_the_trainer_follow_the_scope():
    def initial(seed):
        with seeded(seed):
            return weights(Model())

    assert initial(7) == initial(7) != initial(8)


def test_a_trainer_takes_seeds_of_32_bits(tmp_path):
    large = derive_seed(1029, "fold", 3)
    assert large >= 2**32
    with pytest.raises(ValueError, match="between 0 and 2"):
        train(tmp_path, large)
    assert train(tmp_path, large, seed=large % 2**32) == train(tmp_path, 5, seed=large % 2**32)


@pytest.mark.parametrize("step", [2 * BATCHES, 2 * BATCHES - 3], ids=["epoch end", "mid epoch"])
def test_a_resumed_trainer_ends_in_the_same_bits(tmp_path, step):
    whole = train(tmp_path / "whole", 1029)
    checkpoint = str(tmp_path / "whole" / f"checkpoint-{step}")
    assert train(tmp_path / "resumed", 1029, resume=checkpoint) == whole
    assert train(tmp_path / "other", 5, seed=1029, resume=checkpoint) == whole


def test_a_trainer_without_a_scope_reseeds_the_process(tmp_path):
    before = snapshot()
    trainer_in(tmp_path, Model())
    assert {"python", "numpy", "torch"} <= set(before.changed(snapshot()))
    before.restore()


def test_full_determinism_leaves_variables_of_the_environment(tmp_path):
    with mock.patch.dict(os.environ):
        before = snapshot()
        train(tmp_path, 7, full_determinism=True)
        assert before.changed(snapshot()) == ()
        assert os.environ["CUDA_LAUNCH_BLOCKING"] == "1"
