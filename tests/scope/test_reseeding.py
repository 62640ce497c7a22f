"""A scope tells which sources other code has seeded."""

from __future__ import annotations

import io
import pickle
import random

import numpy as np
import pytest
import torch

from helpers import draw, lines, run_in_thread
from seedscope import (
    RandomState,
    RunLog,
    Stream,
    current_scope,
    derive_seed,
    isolated,
    note,
    seeded,
    snapshot,
)


def set_seed(seed):
    """Seed as trainers do."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def by_transformers(seed):
    pytest.importorskip("transformers").set_seed(seed)


def by_lightning(seed):
    pytest.importorskip("lightning").seed_everything(seed, verbose=False)


SEEDERS = {
    "random.seed": (lambda s: random.seed(s), ("python",)),
    "np.random.seed": (lambda s: np.random.seed(s), ("numpy",)),
    "torch.manual_seed": (lambda s: torch.manual_seed(s), ("torch",)),
    "default_generator": (lambda s: torch.default_generator.manual_seed(s), ("torch",)),
    "by keyword": (lambda s: (random.seed(a=s), np.random.seed(seed=s)), ("numpy", "python")),
    "transformers": (by_transformers, ("numpy", "python", "torch")),
    "lightning": (by_lightning, ("numpy", "python", "torch")),
}


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    """seed_everything sets two variables for good."""
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    monkeypatch.setenv("PL_SEED_WORKERS", "0")


@pytest.mark.parametrize("name", SEEDERS)
def test_the_scope_names_the_sources_that_code_seeds(name):
    seeder, sources = SEEDERS[name]
    before = snapshot()
    with seeded(1029) as scope:
        assert scope.reseeded == ()
        seeder(42)
        assert scope.reseeded == sources
        draw()
        assert scope.reseeded == sources
    assert scope.reseeded == sources
    assert before.changed(snapshot()) in ((), ("fake",))


@pytest.mark.parametrize("name", SEEDERS)
def test_the_scopes_own_seed_is_not_told(name):
    with seeded(1029) as scope:
        draw()
        SEEDERS[name][0](1029)
    assert scope.reseeded == ()


def test_fresh_entropy_is_another_seed():
    with seeded(1029) as scope:
        random.seed()
        np.random.seed()
        torch.seed()
    assert scope.reseeded == ("numpy", "python", "torch")


def test_drawing_and_inner_scopes_reseed_nothing():
    with seeded(1029) as scope:
        draw()
        with seeded(5):
            draw()
        with seeded() as inner:
            draw()
        stream = Stream(9)
        with stream, stream:
            draw()
        stream.state_dict()
        scope.used(), inner.used()
        isolated(lambda: set_seed(3))()
    assert scope.reseeded == inner.reseeded == ()


def test_the_innermost_scope_tells():
    with seeded(1029) as outer, seeded(5) as inner:
        set_seed(42)
    assert inner.reseeded == ("numpy", "python", "torch")
    assert outer.reseeded == ()


def test_an_outer_scope_still_tells_after_an_inner_one():
    with seeded(1029) as outer:
        set_seed(42)
        with seeded(5):
            draw()
    assert outer.reseeded == ("numpy", "python", "torch")


def restore_by_torch(saved):
    random.setstate(saved[0])
    np.random.set_state(saved[1])
    torch.set_rng_state(saved[2])


def saved_states():
    return random.getstate(), np.random.get_state(), torch.get_rng_state()


RESTORES = {
    "as a trainer": (saved_states, restore_by_torch),
    "torch.random": (torch.get_rng_state, lambda s: torch.random.set_rng_state(s)),
    "snapshot": (snapshot, lambda s: s.restore()),
    "RandomState": (RandomState().state_dict, lambda s: RandomState().load_state_dict(s)),
}


@pytest.mark.parametrize("name", RESTORES)
def test_a_restored_state_is_no_reseeding(name):
    save, restore = RESTORES[name]
    with seeded(5):
        draw()
        saved = save()
    with seeded(1029) as scope:
        draw()
        restore(saved)
        draw()
        assert scope.reseeded == ()
        torch.manual_seed(42)
        assert scope.reseeded == ("torch",)
    assert scope.reseeded == ("torch",)


def test_a_restore_within_one_seed_does_not_hide_the_seed():
    """As a checkpointed forward restores the state that follows set_seed."""
    with seeded(1029) as scope:
        torch.manual_seed(42)
        state = torch.get_rng_state()
        torch.rand(1)
        torch.set_rng_state(state)
    assert scope.reseeded == ("torch",)


def test_a_fork_of_torch_that_seeds_and_restores_is_not_told():
    with seeded(1029) as scope, torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
    assert scope.reseeded == ()


def test_a_generator_tells_of_all_of_its_steps(tmp_path):
    @seeded(1029, log=tmp_path / "runs.jsonl")
    def steps():
        random.seed(42)
        yield
        draw()
        yield

    list(steps())
    [run] = RunLog(tmp_path / "runs.jsonl")
    assert run.reseeded == {"python": 42}


def test_the_log_keeps_the_names(tmp_path):
    log = RunLog(tmp_path / "runs.jsonl")
    with seeded(1029, log=log):
        torch.manual_seed(42)
        note(loss=1.0)
    with seeded(1029, log=log):
        draw()
    assert [run.reseeded for run in log] == [{"torch": 42}, {}]
    assert [line.get("reseeded") for line in lines(log)] == [None, {"torch": 42}, None, {}]


def test_another_threads_seed_is_told():
    with seeded(1029) as scope:
        run_in_thread(lambda: random.seed(42))
    assert scope.reseeded == ("python",)


def test_a_restore_bound_before_the_block_is_not_seen():
    """The limit that known issues name, of Lightning's `isolate_rng` for example."""
    restore = random.setstate
    with seeded(1029) as scope:
        state = random.getstate()
        random.seed(3)
        restore(state)
    assert scope.reseeded == ("python",)


def test_a_call_bound_before_the_block_is_seen_by_torch_alone():
    """The limit that known issues name."""
    mine, numpys = random.seed, np.random.seed
    with seeded(1029) as scope:
        mine(42), numpys(42)
        assert scope.reseeded == ()
        torch.manual_seed(42)
    assert scope.reseeded == ("torch",)


def test_the_functions_are_the_libraries_own_after_the_block():
    functions = random.seed, np.random.seed, torch.set_rng_state, torch.random.set_rng_state
    with seeded(1029), seeded(5):
        inside = random.seed, np.random.seed
        assert random.seed.__name__ == "seed"
        assert np.random.seed.__doc__ == functions[1].__doc__
        assert pickle.loads(pickle.dumps(np.random.seed)) is np.random.seed
        data = pickle.dumps(np.random.seed)
    assert (random.seed, np.random.seed, torch.set_rng_state, torch.random.set_rng_state) == (
        functions
    )
    assert pickle.loads(data) is np.random.seed  # as in a process without a scope
    with isolated():
        inside[0](3), inside[1](3)
        expected = random.random(), np.random.rand()
        random.seed(3), np.random.seed(3)
        assert (random.random(), np.random.rand()) == expected


def test_a_users_replacement_of_random_seed_is_kept(monkeypatch):
    calls = []
    monkeypatch.setattr(random, "seed", calls.append)
    mine = random.seed
    with seeded(1029) as scope:
        random.seed(42)
    assert random.seed is mine
    assert 42 in calls
    assert scope.reseeded == ("python",)


def test_errors_of_the_libraries_pass_through():
    with seeded(1029) as scope:
        with pytest.raises(ValueError, match="between 0 and"):
            np.random.seed(-1)
        with pytest.raises(TypeError):
            torch.set_rng_state("no state")
    assert scope.reseeded == ()


def test_a_saved_run_of_another_seed_resumes_without_a_word():
    file = io.BytesIO()
    with seeded(5):
        torch.save(torch.get_rng_state(), file)
    file.seek(0)
    with seeded(1029) as scope:
        torch.set_rng_state(torch.load(file, weights_only=True))
    assert scope.reseeded == ()


def test_seeds_that_follow_from_the_scope_are_its_own():
    with seeded(derive_seed(1029, "fold", 1)) as scope:
        set_seed(scope.seed % 2**32)  # as trainers need it
        set_seed(scope.derive("sampler") % 2**32)
        torch.manual_seed(scope.derive("torch"))
        torch.manual_seed(current_scope().derive("other"))
        assert scope.reseeded == ()
    assert scope.reseeded == ()


def test_a_seed_that_is_cut_for_numpy_is_the_scopes_own():
    with seeded(2**64 - 1) as scope:
        set_seed(scope.seed % 2**32)
        assert scope.reseeded == ()


def test_a_fresh_scope_tells_the_scope_around():
    @seeded
    def helper():
        torch.manual_seed(42)
        return torch.rand(1)

    with seeded(1029) as scope:
        helper()
        with seeded(5):
            random.seed(42)  # follows from no seed but 5
        assert scope.reseeded == ("torch",)
    assert scope.reseeded == ("torch",)


@pytest.mark.parametrize("save", [lambda: torch.get_rng_state(), saved_states, snapshot])
def test_a_fork_after_a_seed_does_not_hide_the_seed(save):
    with seeded(1029) as scope:
        torch.manual_seed(42)
        state = save()
        torch.manual_seed(7)
        if isinstance(state, torch.Tensor):
            torch.set_rng_state(state)
        elif save is snapshot:
            state.restore()
        else:
            restore_by_torch(state)
        assert scope.reseeded == ("torch",)
    with seeded(1029) as scope:
        torch.manual_seed(42)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
    assert scope.reseeded == ("torch",)


def save_seed_restore():
    states = random.getstate(), np.random.get_state()
    random.seed(3), np.random.seed(3)
    draw()
    random.setstate(states[0])
    np.random.set_state(states[1])


def save_seed_restore_by_snapshot():
    moment = snapshot()
    set_seed(3)
    moment.restore()


@pytest.mark.parametrize("code", [save_seed_restore, save_seed_restore_by_snapshot])
def test_code_that_seeds_and_restores_is_not_told(code):
    with seeded(1029) as scope:
        code()
    assert scope.reseeded == ()
    with seeded(1029) as scope:
        set_seed(42)
        code()
    assert scope.reseeded == ("numpy", "python", "torch")


def test_the_innermost_block_that_governs_a_source_tells():
    before = snapshot()
    with seeded(1, sources=["torch"]) as scope:
        np.random.seed(0)
    assert scope.reseeded == ()
    before.restore()
    with seeded(1) as outer, seeded(3, sources=["numpy"]) as inner:
        random.seed(5)
    assert (outer.reseeded, inner.reseeded) == (("python",), ())
    with seeded(1) as outer, isolated(sources=["numpy"]):
        random.seed(5)
    assert outer.reseeded == ("python",)


def test_a_restore_of_another_source_does_not_hide_the_seed():
    saved = random.getstate()
    with seeded(1029) as scope:
        torch.manual_seed(42)
        random.setstate(saved)
    assert scope.reseeded == ("torch",)
