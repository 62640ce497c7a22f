"""What is particular to some sources; test_source_contract.py has what all share."""

from __future__ import annotations

import gc
import multiprocessing.synchronize
import os
import random
import secrets
import sys
import tempfile
import threading
import types
import uuid

import numpy as np
import pytest
import torch
from fake_accelerator import DEVICES
from hypothesis import given
from hypothesis import strategies as st
from test_source_contract import Lottery

from seedscope import RestoreError, Snapshot, Source, register_source, seeded, snapshot
from seedscope.sources import unseeded


@pytest.fixture(params=["PCG64", "Philox", "SFC64", "MT19937"])
def bit_generator(request):
    original = np.random.get_bit_generator()
    state = np.random.get_state(legacy=False)
    mine = getattr(np.random, request.param)(5)
    np.random.set_bit_generator(mine)
    yield mine
    np.random.set_bit_generator(original)
    np.random.set_state(state)


@given(st.integers(0, 2**64 - 1))
def test_seeds_give_what_each_library_gives(seed):
    with seeded(seed):
        got = random.random(), torch.rand(1).item()
        numpy_got = np.random.rand()
    assert got == (
        random.Random(seed).random(),
        torch.rand(1, generator=torch.Generator().manual_seed(seed)).item(),
    )
    words = seed if seed < 2**32 else [seed % 2**32, seed // 2**32]
    assert numpy_got == np.random.RandomState(words).rand()


def test_seeds_above_32_bits_do_not_fold_into_one_for_numpy():
    values = set()
    for seed in (5, 5 + 2**32, 5 + 2**33, 5 + 2**63):
        with seeded(seed):
            values.add(np.random.rand())
    assert len(values) == 4


# NumPy


@pytest.mark.parametrize("draws_before", [0, 1, 2])
@pytest.mark.parametrize("draws_inside", [0, 1, 2])
def test_numpys_cached_gaussian_comes_back(draws_before, draws_inside):
    outer = snapshot()
    for _ in range(draws_before):
        np.random.standard_normal()
    reference = np.random.get_state(legacy=False)
    assert reference["has_gauss"] == draws_before % 2
    with seeded(1029):
        assert np.random.get_state(legacy=False)["has_gauss"] == 0
        for _ in range(draws_inside):
            np.random.standard_normal()
    now = np.random.get_state(legacy=False)
    assert now["gauss"] == reference["gauss"]
    assert now["has_gauss"] == reference["has_gauss"]
    assert now["state"]["pos"] == reference["state"]["pos"]
    assert now["state"]["key"].tolist() == reference["state"]["key"].tolist()
    outer.restore()


@pytest.mark.parametrize("cached", [0, 1])
def test_any_bit_generator_is_seeded_and_restored_in_place(bit_generator, cached):
    for _ in range(cached):
        np.random.standard_normal()
    user = np.random.Generator(bit_generator)
    before, reference = snapshot(), np.random.get_state(legacy=False)
    with seeded(1029):
        first = np.random.rand(), np.random.standard_normal(), user.random()
    with seeded(1029):
        assert (np.random.rand(), np.random.standard_normal(), user.random()) == first
    assert np.random.get_bit_generator() is bit_generator
    assert snapshot() == before
    assert str(np.random.get_state(legacy=False)) == str(reference)


def test_a_bit_generator_that_the_block_replaces_comes_back(bit_generator):
    np.random.standard_normal()
    before = snapshot()
    with seeded(1029):
        np.random.set_bit_generator(np.random.PCG64(3))
        np.random.rand()
    assert np.random.get_bit_generator() is bit_generator
    assert snapshot() == before


def test_a_saved_bit_generator_of_another_kind_is_made_again(bit_generator):
    np.random.standard_normal()
    saved = snapshot().state_dict()
    expected = np.random.standard_normal(), np.random.rand()
    np.random.set_bit_generator(np.random.MT19937(0))
    Snapshot.from_state_dict(saved).restore()
    assert type(np.random.get_bit_generator()) is type(bit_generator)
    assert (np.random.standard_normal(), np.random.rand()) == expected


# Generators made without a seed


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


def test_names_of_temporary_files_do_not_shift_what_numpy_gets():
    with seeded(1029):
        expected = np.random.default_rng().random(), random.Random().random()
    with seeded(1029):
        with tempfile.NamedTemporaryFile(prefix="seedscope"):
            next(tempfile._RandomNameSequence())
            multiprocessing.get_context("fork").Lock()
        numpy_got = np.random.default_rng().random()
        random_got = random.Random().random()
    assert (numpy_got, random_got) == expected


def test_pythons_and_numpys_unseeded_generators_are_separate_streams():
    with seeded(1029):
        expected = [np.random.default_rng().random() for _ in range(3)]
    with seeded(1029):
        got = []
        for _ in range(3):
            random.Random()
            got.append(np.random.default_rng().random())
    assert got == expected


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


def test_a_thread_that_draws_while_the_block_ends_leaves_nothing_behind(monkeypatch):
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


def test_processes_of_a_pool_forked_inside_draw_real_entropy():
    with seeded(1029), multiprocessing.get_context("fork").Pool(2) as pool:
        drawn = [*pool.map(_unseeded_alone, range(8), 1)]
    assert len({value for values in drawn for value in values}) == 16


def test_a_snapshot_taken_inside_leaves_no_patch_when_it_is_restored_outside():
    import numpy.random.bit_generator as bits

    outer, patched = snapshot(), (bits.randbits, random.Random.seed)
    with seeded(1029):
        np.random.default_rng()
        inside = snapshot()
    inside.restore()
    assert (bits.randbits, random.Random.seed) == patched
    outer.restore()


def test_seeded_generators_are_as_ever():
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
def test_what_a_library_makes_for_itself_on_import_is_not_the_blocks(made, tmp_path, monkeypatch):
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


def test_a_block_at_the_top_of_a_module_that_is_imported_is_covered(tmp_path, monkeypatch):
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


def test_forked_loader_workers_neither_repeat_each_other_nor_vary():
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


# Accelerators, on the fake device


def test_all_devices_are_seeded_and_restored(fake):
    fake.init()
    before = snapshot()
    with seeded(1029) as scope:
        inside = fake.rand()
        assert scope.used() == ("fake",)
    assert len(inside) == DEVICES
    assert (
        inside == (torch.rand(1, generator=torch.Generator().manual_seed(1029)).item(),) * DEVICES
    )
    assert snapshot() == before


def test_a_device_that_is_not_started_is_not_started_by_a_scope(fake):
    queue = list(fake._queued_calls)
    with seeded(1029):
        assert not fake.is_initialized()
        assert len(fake._queued_calls) == len(queue) + 1
    assert not fake.is_initialized()
    assert fake._queued_calls == queue
    assert fake._lazy_seed_tracker.get_calls() == []


def test_what_waits_for_a_device_waits_again_after_the_block(fake):
    fake.manual_seed_all(5)
    fake.manual_seed(6)
    tracker = dict(vars(fake._lazy_seed_tracker))
    with seeded(1029):
        torch.manual_seed(77)  # queues a seed for every device that is not started
        fake.manual_seed(78)
        fake.set_rng_state(torch.Generator().get_state(), 2)
    assert vars(fake._lazy_seed_tracker) == tracker
    generators = [torch.Generator().manual_seed(5) for _ in range(DEVICES)]
    generators[0].manual_seed(6)
    assert fake.rand() == tuple(torch.rand(1, generator=g).item() for g in generators)


def test_a_device_first_used_inside_is_seeded(fake):
    with seeded(1029) as scope:
        first = fake.rand()
        assert scope.used() == ("fake",)
    fake.reset()
    with seeded(1029):
        assert fake.rand() == first
    fake.reset()
    with seeded(1029):
        torch.manual_seed(3)  # the block's own seed comes later, so it wins
        assert (
            fake.rand()
            == (torch.rand(1, generator=torch.Generator().manual_seed(3)).item(),) * DEVICES
        )


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("waits", ["seed", "seed of one device", "state", "nothing"])
def test_a_device_first_used_inside_has_the_state_on_exit_that_it_would_have_without(
    fake, waits, depth
):
    def queue():
        if waits == "seed":
            fake.manual_seed_all(5)
        elif waits == "seed of one device":
            fake.manual_seed(5)
        elif waits == "state":
            for device in range(DEVICES):
                fake.set_rng_state(torch.Generator().manual_seed(5).get_state(), device)

    queue()
    without = fake.rand()
    fake.reset()
    queue()

    def enter(depth):
        with seeded(1029 + depth):
            if depth:
                enter(depth - 1)
            else:
                fake.rand()
                return
            first = torch.rand(1, generator=torch.Generator().manual_seed(1029 + depth)).item()
            assert fake.rand() == (first,) * DEVICES, "an outer block goes on in its own stream"

    enter(depth - 1)
    with_block = fake.rand()
    if waits in ("seed", "state"):
        assert with_block == without
    elif waits == "seed of one device":
        assert with_block[0] == without[0]
        assert len({*with_block, *without}) == 2 * DEVICES - 1
    else:
        assert len({*with_block, *without}) == 2 * DEVICES, "fresh entropy on each device"


def test_a_device_started_between_two_steps_of_a_generator_goes_on_in_its_stream(fake):
    @seeded(1029)
    def steps():
        yield
        yield fake.rand()

    with seeded(1029):
        expected = fake.rand()
    fake.reset()
    running = steps()
    next(running)
    outside = fake.rand()
    assert next(running) == expected
    assert fake.rand() != outside


def test_a_state_saved_from_a_started_device_waits_for_one_that_is_not(fake):
    fake.init()
    saved = snapshot().state_dict()
    expected = fake.rand()
    fake.reset()
    fake.manual_seed_all(3)
    Snapshot.from_state_dict(saved).restore()
    assert not fake.is_initialized()
    assert fake.rand() == expected


def test_a_state_with_more_devices_than_there_are_warns(fake):
    fake.init()
    saved = snapshot().state_dict()
    saved["sources"]["fake"].append(saved["sources"]["fake"][0])
    with pytest.warns(UserWarning, match="5 fake generators, this process has 4"):
        Snapshot.from_state_dict(saved).restore()


@pytest.mark.skipif(torch.backends.cuda.is_built(), reason="this build of torch has CUDA")
def test_a_device_that_this_torch_can_never_start_is_not_governed():
    queue = list(torch.cuda._queued_calls)
    with seeded(1029, sources=["cuda"]) as scope:
        assert torch.cuda._queued_calls == queue
        assert scope._governed() == []
    assert "cuda" not in snapshot().state_dict()["sources"]


@pytest.mark.skipif(torch.backends.mps.is_built(), reason="this build of torch has MPS")
def test_a_state_of_a_device_that_this_torch_cannot_have_warns():
    saved = snapshot().state_dict()
    saved["sources"]["mps"] = [torch.zeros(16, dtype=torch.uint8)]
    moment = Snapshot.from_state_dict(saved)
    with pytest.warns(UserWarning, match="this build of torch has no mps"):
        moment.restore()


def test_entering_while_a_graph_is_captured_is_refused(fake):
    fake.init()
    before = snapshot()
    fake.capturing = True
    with pytest.raises(RuntimeError, match="graph is being captured"), seeded(1029):
        pass
    fake.capturing = False
    assert snapshot() == before
    with seeded(1029):
        pass


# CuPy, by a module of the same shape


@pytest.fixture
def cupy(monkeypatch):
    """As much of cupy.random as keeps its global generators."""
    module = types.ModuleType("cupy.random._generator")
    module._random_states = {}

    class RandomState:
        def __init__(self, seed):
            self.generator = random.Random(int(seed))

    def get_random_state(device=0):
        if device not in module._random_states:
            seed = os.getenv("CUPY_SEED") or secrets.randbits(32)
            module._random_states[device] = RandomState(seed)
        return module._random_states[device]

    module.rand = lambda device=0: get_random_state(device).generator.random()
    monkeypatch.setitem(sys.modules, "cupy.random._generator", module)
    return module


def test_cupy_repeats_inside_and_its_generators_come_back(cupy):
    cupy.rand()
    mine = dict(cupy._random_states)
    with seeded(1029) as scope:
        first = cupy.rand(), cupy.rand(1)
        assert "cupy" in scope.used()
    with seeded(1029):
        assert (cupy.rand(), cupy.rand(1)) == first
    assert cupy._random_states == mine
    assert "CUPY_SEED" not in os.environ
    assert "cupy" not in snapshot().state_dict()["sources"]


# A user's own


def test_a_registered_source_is_governed_until_it_is_unregistered():
    source = Lottery()
    unregister = register_source(source)
    with seeded(1029):
        first = source.draw()
        unregister()
    assert source.state == 7, "a source unregistered inside the block is still restored"
    with seeded(1029):
        source.draw()
    assert source.state != 7
    assert first != source.draw()


@pytest.mark.parametrize(
    ("attributes", "error", "says"),
    [
        ({}, TypeError, "lacks a name"),
        ({"name": "x"}, TypeError, "lacks capture, seed, restore"),
        ({"name": 3, "capture": id, "seed": id, "restore": id}, TypeError, "name"),
        (
            {"name": "torch", "capture": id, "seed": id, "restore": id},
            ValueError,
            "'torch' is already registered",
        ),
    ],
)
def test_a_source_that_cannot_work_is_refused(attributes, error, says):
    with pytest.raises(error, match=says):
        register_source(types.SimpleNamespace(**attributes))


def test_a_source_whose_restore_fails_does_not_stop_the_others():
    class Broken(Source):
        name = "broken"

        def capture(self):
            return 1

        def seed(self, seed):
            pass

        def restore(self, state):
            raise OSError("gone")

    unregister = register_source(Broken())
    before = snapshot()
    try:
        with pytest.raises(RestoreError, match="could not restore broken") as raised, seeded(1029):
            random.random()
            torch.rand(1)
            np.random.rand()
            torch.use_deterministic_algorithms(False)
        assert [type(error) for error in raised.value.exceptions] == [OSError]
        assert before.changed(snapshot()) == ()
    finally:
        unregister()
    with seeded(1029):
        pass


def test_a_source_whose_seed_fails_leaves_nothing_changed():
    class Broken(Lottery):
        def seed(self, seed):
            self.state = 0
            raise OSError("no entropy")

    source = Broken()
    unregister = register_source(source)
    before = snapshot()
    with pytest.raises(OSError, match="no entropy"), seeded(1029):
        pass
    assert snapshot() == before
    assert source.state == 7
    unregister()
    with seeded(1029):
        pass
