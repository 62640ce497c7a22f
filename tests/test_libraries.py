"""Libraries that people use, unchanged: repeatable inside, invisible outside."""

from __future__ import annotations

import albumentations
import numpy as np
import pandas as pd
import pytest
import scipy.optimize
import scipy.stats
import torch
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split
from torch.utils.data import DataLoader, Dataset, TensorDataset

from seedscope import seeded, snapshot

IMAGE = np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3)


def augment():
    pipeline = albumentations.Compose(
        [
            albumentations.RandomCrop(48, 48),
            albumentations.HorizontalFlip(p=0.5),
            albumentations.GaussNoise(p=1),
            albumentations.ColorJitter(p=1),
        ]
    )
    return [pipeline(image=IMAGE)["image"] for _ in range(3)]


def forest():
    x, y = load_digits(return_X_y=True)
    x_train, x_test, y_train, _ = train_test_split(x[:600], y[:600])
    return RandomForestClassifier(10).fit(x_train, y_train).predict_proba(x_test)


def optimise():
    return scipy.optimize.differential_evolution(
        lambda x: float(np.sum(x**2) + np.sin(5 * x[0])), [(-2, 2)] * 2, maxiter=5, polish=False
    ).x


def sample():
    return scipy.stats.norm.rvs(size=9), scipy.stats.bootstrap(
        (np.arange(9.0),), np.mean, n_resamples=99
    ).standard_error


def frame():
    data = pd.DataFrame({"a": range(50)})
    return data.sample(20)["a"].to_numpy(), data.sample(frac=1)["a"].to_numpy()


class Noisy(Dataset):
    def __len__(self):
        return 16

    def __getitem__(self, index):
        return np.random.default_rng().random() + np.random.rand() + torch.rand(
            1
        ).item(), augment()[0]


def workers():
    loader = DataLoader(Noisy(), 4, shuffle=True, num_workers=2, multiprocessing_context="fork")
    return [part.numpy() for batch in loader for part in batch]


def no_workers():
    dataset = TensorDataset(torch.arange(32.0))
    return [batch[0].numpy() for batch in DataLoader(dataset, 4, shuffle=True)]


@pytest.mark.parametrize("work", [augment, forest, optimise, sample, frame, workers, no_workers])
def test_libraries_repeat_inside_and_leave_no_trace_outside(work):
    before = snapshot()
    with seeded(1029):
        first = work()
    assert before.changed(snapshot()) == ()
    with seeded(1029):
        second = work()
    with seeded(1030):
        other = work()
    assert before.changed(snapshot()) == ()
    assert all(map(np.array_equal, first, second))
    assert not all(map(np.array_equal, first, other))
