"""Generators made without a seed: they repeat inside, and are as usual outside."""

from __future__ import annotations

import gc
import multiprocessing.synchronize
import os
import random
import secrets
import sys
import tempfile
import threading
import uuid

import numpy as np
import pytest
import torch

from seedscope import seeded, snapshot
from seedscope.sources import unseeded


def test_the_operating_systems_own_entropy_is_never_touched():
    def entropy():
        return (
            secrets.token_hex(),
            uuid.uuid4(),
            os.urandom(8),
            random.SystemRandom().random(),
            next(tempfile._RandomNameSequence()),
            multiprocessing.synchronize.SemLock._make_name(),
        )

    with seeded(1029):
        first = entropy()
    with seeded(1029):
        second = entropy()
    assert not set(first) & set(second)


def test_names_of_temporary_files_do_not_shift_the_generators():
    with seeded(1029):
        expected = np.random.default_rng().random(), random.Random().random()
    with seeded(1029):
        with tempfile.NamedTemporaryFile(prefix="seedscope"):
            next(tempfile._RandomNameSequence())
            multiprocessing.get_context("fork").Lock()
        numpy_got = np.random.default_rng().random()
        random_got = random.Random().random()
    assert (numpy_got, random_got) == expected


def test_unseeded_generators_of_python_and_numpy_are_separate():
    with seeded(1029):
        expected = [np.random.default_rng().random() for _ in range(3)]
    with seeded(1029):
        got = []
        for _ in range(3):
            random.Random()
            got.append(np.random.default_rng().random())
    assert got == expected


def test_a_saved_state_counts_the_draws_of_each_stream():
    def saved():
        return snapshot().state_dict()["sources"]["unseeded"]

    with seeded(1029):
        assert saved() == [1029, 0, 0, 0]
        np.random.default_rng()
        assert saved() == [1029, 1, 0, 0]
        random.Random(), random.Random()
        assert saved() == [1029, 1, 2, 0]
        with seeded():
            pass
        assert saved() == [1029, 1, 2, 1]


def test_a_finaliser_that_draws_does_not_stop_the_process():
    class Draws:
        def __init__(self):
            self.cycle = self

        def __del__(self):
            np.random.default_rng()

    with seeded(1029):
        for _ in range(20_000):
            Draws()
            np.random.SeedSequence()
    gc.collect()


def test_a_thread_that_draws_as_a_block_ends_leaves_no_trace(monkeypatch):
    outer, original = snapshot(), unseeded.UnseededState._replace
    drawing, ended = threading.Event(), threading.Event()

    def replace_later(state, **values):
        if threading.current_thread() is thread:
            drawing.set()
            ended.wait(20)
        return original(state, **values)

    monkeypatch.setattr(unseeded.UnseededState, "_replace", replace_later)
    thread = threading.Thread(target=np.random.default_rng)
    with seeded(1029):
        thread.start()
        assert drawing.wait(20)
    ended.set()
    thread.join()
    assert outer.changed(snapshot()) == ()
    with seeded(7):
        pass
    assert np.random.default_rng().random() != np.random.default_rng().random()
    assert np.random.bit_generator.randbits == secrets.randbits


@pytest.mark.filterwarnings("ignore:worker processes")
def test_processes_of_a_pool_forked_inside_draw_real_entropy():
    with seeded(1029), multiprocessing.get_context("fork").Pool(2) as pool:
        drawn = [*pool.map(_unseeded_alone, range(8), 1)]
    assert len({value for values in drawn for value in values}) == 16


def test_a_snapshot_from_inside_restores_no_patch_outside():
    import numpy.random.bit_generator as bits

    outer, patched = snapshot(), (bits.randbits, random.Random.seed)
    with seeded(1029):
        np.random.default_rng()
        inside = snapshot()
    inside.restore()
    assert (bits.randbits, random.Random.seed) == patched
    outer.restore()


def test_generators_with_a_seed_are_left_alone():
    with seeded(1029):
        inside = np.random.default_rng(5).random(), random.Random(5).random()
    assert inside == (np.random.default_rng(5).random(), random.Random(5).random())


def test_patches_are_gone_outside():
    import numpy.random.bit_generator as bits

    before = bits.randbits, random.Random.seed
    with seeded(1), seeded(2):
        assert (bits.randbits, random.Random.seed) != before
    assert (bits.randbits, random.Random.seed) == before
    assert np.random.default_rng().random() != np.random.default_rng().random()


@pytest.mark.parametrize("made", ["random.Random()", "np.random.default_rng()"])
def test_a_generator_made_by_a_librarys_import_is_not_seeded(made, tmp_path, monkeypatch):
    (tmp_path / "lazy_library.py").write_text(
        f"import random, numpy as np\ndef make(): return {made}\nmine = make()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    def run():
        with seeded(1029) as scope:
            import lazy_library

            assert scope.used() == ()
            return lazy_library.mine.random(), lazy_library.make().random(), scope.used()

    first, second = run(), run()
    del sys.modules["lazy_library"]
    third = run()
    assert first[1:] == second[1:] == third[1:]
    assert first[0] != third[0], "the library's own generator has real entropy"
    del sys.modules["lazy_library"]


def test_a_block_at_the_top_of_an_imported_module_is_covered(tmp_path, monkeypatch):
    (tmp_path / "with_block.py").write_text(
        "import random, numpy as np\nfrom seedscope import seeded\n"
        "with seeded(1029):\n"
        "    drawn = np.random.default_rng().random(), random.Random().random()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import with_block

    first = with_block.drawn
    del sys.modules["with_block"]
    import with_block

    assert with_block.drawn == first


def test_subclasses_of_random_are_covered():
    class Mine(random.Random):
        pass

    with seeded(1029):
        first = Mine().random()
    with seeded(1029):
        assert Mine().random() == first


def _unseeded_and_global(_):
    return np.random.default_rng().random(), random.Random().random(), torch.rand(1).item()


def _unseeded_alone(_):
    return np.random.default_rng().random(), random.Random().random()


class Items(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        return torch.tensor(_unseeded_and_global(index), dtype=torch.float64)


def test_forked_loader_workers_differ_and_repeat():
    def epoch():
        loader = torch.utils.data.DataLoader(
            Items(), num_workers=2, batch_size=1, multiprocessing_context="fork"
        )
        return torch.cat([*loader])

    with seeded(1029):
        first, next_epoch = epoch(), epoch()
    with seeded(1029):
        assert torch.equal(first, epoch())
    assert not torch.equal(first, next_epoch)
    assert len(first.unique()) == first.numel()
