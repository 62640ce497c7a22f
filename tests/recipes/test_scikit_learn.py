"""scikit-learn with n_jobs: worker processes follow a seed that is passed to them."""

from __future__ import annotations

import warnings

import joblib
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import KFold, cross_val_score

from seedscope import seeded

pytestmark = pytest.mark.usefixtures("the_outer_state_is_intact")

INPUTS, LABELS = (part[:200] for part in load_digits(return_X_y=True))


@pytest.fixture(autouse=True)
def workers_may_start():
    """A scope may warn of worker processes that its block has started."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def scores(n_jobs, *, seed=1029, passed=True):
    with seeded(seed) as scope:
        state = scope.derive("forest") % 2**32 if passed else None
        folds = KFold(4, shuffle=True, random_state=state)
        forest = RandomForestClassifier(5, random_state=state)
        return cross_val_score(forest, INPUTS, LABELS, cv=folds, n_jobs=n_jobs).tolist()


def drawn():
    return np.random.rand()


def drawn_in(seed):
    with seeded(seed):
        return np.random.rand()


def test_worker_processes_do_not_follow_the_scope():
    def draws(n_jobs):
        with seeded(1029):
            return joblib.Parallel(n_jobs)(joblib.delayed(drawn)() for _ in range(4))

    assert draws(1) == draws(1)
    assert draws(2) != draws(2)


def test_scores_follow_a_random_state_that_is_passed():
    first = scores(2)
    assert first == scores(2) == scores(1)
    assert first != scores(2, seed=1030)


def test_scores_of_one_process_follow_the_scope():
    assert scores(1, passed=False) == scores(1, passed=False)


def test_a_forest_with_threads_follows_the_scope():
    def fit(n_jobs):
        with seeded(1029):
            forest = RandomForestClassifier(5, n_jobs=n_jobs).fit(INPUTS, LABELS)
        return forest.predict_proba(INPUTS).tolist()

    assert fit(1) == fit(2) == fit(2)


def test_a_random_state_has_32_bits():
    with seeded(1029) as scope:
        large = scope.derive("forest")
        assert large >= 2**32
        with pytest.raises(ValueError, match="random_state"):
            RandomForestClassifier(5, random_state=large).fit(INPUTS, LABELS)


def test_tasks_follow_a_seed_for_each_task():
    def draws(n_jobs):
        with seeded(1029) as scope:
            seeds = [scope.derive("task", i) for i in range(4)]
            return joblib.Parallel(n_jobs)(joblib.delayed(drawn_in)(seed) for seed in seeds)

    assert draws(1) == draws(2) == draws(2)
    assert len(set(draws(2))) == 4
