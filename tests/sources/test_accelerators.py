"""Devices: each is seeded and restored, and none is started."""

from __future__ import annotations

import pytest
import torch

from fake_accelerator import DEVICES
from seedscope import Snapshot, seeded, snapshot


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


def test_a_scope_does_not_start_a_device(fake):
    queue = list(fake._queued_calls)
    with seeded(1029):
        assert not fake.is_initialized()
        assert len(fake._queued_calls) == len(queue) + 1
    assert not fake.is_initialized()
    assert fake._queued_calls == queue
    assert fake._lazy_seed_tracker.get_calls() == []


def test_queued_seeds_wait_for_the_device_again_afterwards(fake):
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
        torch.manual_seed(3)  # this seed comes later than the scope's, so it wins
        assert (
            fake.rand()
            == (torch.rand(1, generator=torch.Generator().manual_seed(3)).item(),) * DEVICES
        )


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("waits", ["seed", "seed of one device", "state", "nothing"])
def test_a_device_first_used_inside_ends_as_without_a_block(fake, waits, depth):
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
            assert fake.rand() == (first,) * DEVICES, "an outer block continues in its own stream"

    enter(depth - 1)
    with_block = fake.rand()
    if waits in ("seed", "state"):
        assert with_block == without
    elif waits == "seed of one device":
        assert with_block[0] == without[0]
        assert len({*with_block, *without}) == 2 * DEVICES - 1
    else:
        assert len({*with_block, *without}) == 2 * DEVICES, "fresh entropy on each device"


def test_a_device_that_has_run_no_queued_call_gets_the_callers_seed(fake):
    fake.manual_seed_all(5)
    with seeded(1029):
        fake.default_generators = tuple(torch.Generator() for _ in range(DEVICES))
    expected = torch.rand(1, generator=torch.Generator().manual_seed(5)).item()
    assert fake.rand() == (expected,) * DEVICES


def test_a_device_started_between_two_steps_keeps_its_stream(fake):
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


def test_a_saved_state_waits_until_the_device_starts(fake):
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
def test_a_device_that_this_torch_cannot_start_is_not_governed():
    queue = list(torch.cuda._queued_calls)
    with seeded(1029, sources=["cuda"]) as scope:
        assert torch.cuda._queued_calls == queue
        assert scope.sources() == []
    assert "cuda" not in snapshot().state_dict()["sources"]


@pytest.mark.skipif(torch.backends.mps.is_built(), reason="this build of torch has MPS")
def test_a_state_of_a_device_that_this_torch_cannot_have_warns():
    saved = snapshot().state_dict()
    saved["sources"]["mps"] = [torch.zeros(36, dtype=torch.uint8)]
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
