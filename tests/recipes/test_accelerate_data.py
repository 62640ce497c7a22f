"""Accelerate takes a seeded_loader: it shares the batches, and skips exactly the first ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from accelerate import Accelerator
from accelerate.data_loader import DataLoaderShard

from helpers import PROGRAMS, ROOT, TESTS
from seedscope import RandomState, seeded, seeded_loader
from small_data import SEED, Noisy, are_equal, mix
from small_training import BATCHES, network, optimizer, weights

EPOCHS = 4


def loader(workers=0):
    fork = "fork" if workers else None
    options = {"num_workers": workers, "multiprocessing_context": fork}
    return seeded_loader(Noisy(), SEED, batch_size=4, shuffle=True, collate_fn=mix, **options)


@pytest.fixture(scope="module")
def expected():
    """The batches of each epoch."""
    batches, epochs = loader(), []
    for epoch in range(EPOCHS):
        batches.set_epoch(epoch)
        epochs.append([*batches])
    return epochs


@pytest.mark.parametrize("workers", [0, 2])
def test_the_batches_are_the_loaders_own(expected, workers):
    batches = Accelerator(cpu=True).prepare(loader(workers))
    assert type(batches) is DataLoaderShard
    for epoch in range(2):  # Accelerate counts the epochs by itself
        assert are_equal([*batches], expected[epoch])
    for epoch in (3, 1):
        batches.set_epoch(epoch)
        assert are_equal([*batches], expected[epoch])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("consumed", [1, 4, BATCHES])
def test_skipping_the_first_batches_leaves_exactly_the_rest(expected, workers, consumed):
    accelerator = Accelerator(cpu=True)
    batches = accelerator.prepare(loader(workers))
    batches.set_epoch(2)
    rest = accelerator.skip_first_batches(batches, consumed)
    assert are_equal([*rest], expected[2][consumed:])
    batches.set_epoch(3)
    assert are_equal([*batches], expected[3])


def train(folder, *, seed=SEED, workers=0, resume=None, epoch=0, batch=0):
    """Train from a batch of an epoch to the end of the fourth, and save after each batch."""
    with seeded(seed):
        accelerator, model = Accelerator(cpu=True), network()
        accelerator.register_for_checkpointing(RandomState())
        model, steps, batches = accelerator.prepare(model, optimizer(model), loader(workers))
        if resume:
            accelerator.load_state(str(folder / resume))
        for now in range(epoch, EPOCHS):
            batches.set_epoch(now)
            first = batch if now == epoch else 0
            rest = accelerator.skip_first_batches(batches, first) if first else batches
            for index, inputs in enumerate(rest, first):
                accelerator.backward(model(inputs).square().mean())
                steps.step()
                steps.zero_grad()
                if not resume:
                    accelerator.save_state(str(folder / f"{now}-{index}"))
        return weights(model)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_resumes_exactly_in_an_epoch(tmp_path, workers):
    whole = train(tmp_path, workers=workers)
    for resume, epoch, batch in (("1-2", 1, 3), ("1-5", 2, 0)):
        place = {"resume": resume, "epoch": epoch, "batch": batch}
        assert train(tmp_path, seed=5, workers=workers, **place) == whole


def draw_on_two_ranks(out):
    """What each of two real processes has drawn."""
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    paths = os.pathsep.join([str(ROOT), str(TESTS)])
    result = subprocess.run(
        [sys.executable, *command, str(PROGRAMS / "accelerate_data.py"), str(out)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return [json.loads((out / f"{rank}.json").read_text()) for rank in range(2)]


def test_two_ranks_share_the_loaders_batches(tmp_path, expected):
    ranks = draw_on_two_ranks(tmp_path)
    for epoch in (0, 1):
        batches = [batch.tolist() for batch in expected[epoch]]
        assert [rank["epochs"][epoch] for rank in ranks] == [batches[::2], batches[1::2]]
    for rank in ranks:
        assert rank["rest"] == rank["epochs"][1][1:], "each rank skips its own first batch"
        assert "pass num_replicas=1" in rank["message"], "a share of a share is refused"
    drawn = [row[0] for rank in ranks for batch in rank["stream"] for row in batch]
    assert sorted(drawn) == [*range(16)], "all ranks draw one stream alike, and share it"
