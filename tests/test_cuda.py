"""What the fake device shows, on a real GPU. CUDA starts once in a process: each has its own."""

from __future__ import annotations

import pytest
import torch
from conftest import run_python

pytestmark = pytest.mark.cuda

PRELUDE = """
import torch
from seedscope import seeded, snapshot

def rand():
    return [torch.rand(1, device=f"cuda:{i}").item() for i in range(torch.cuda.device_count())]
"""


def test_a_scope_does_not_start_cuda_and_keeps_what_waits_for_it():
    run_python(
        PRELUDE
        + """
torch.cuda.manual_seed_all(5)
queue, tracker = list(torch.cuda._queued_calls), dict(vars(torch.cuda._lazy_seed_tracker))
with seeded(1029):
    torch.manual_seed(7)
assert not torch.cuda.is_initialized()
assert torch.cuda._queued_calls == queue and vars(torch.cuda._lazy_seed_tracker) == tracker
first = rand()
torch.cuda.manual_seed_all(5)
assert rand() == first
"""
    )


@pytest.mark.parametrize("waits", ["torch.cuda.manual_seed_all(5)", "pass"])
def test_cuda_first_used_inside_is_seeded_and_afterwards_as_without_the_block(waits):
    run_python(
        PRELUDE
        + f"""
{waits}
with seeded(1029) as scope:
    inside = rand()
    assert "cuda" in scope.used()
outside = rand()
before = snapshot()
with seeded(1029):
    assert rand() == inside
assert before.changed(snapshot()) == ()
torch.cuda.manual_seed_all(1029)
assert rand() == inside
torch.cuda.manual_seed_all(5)
assert (rand() == outside) == ({waits!r} != "pass")
"""
    )


def test_a_forked_worker_can_open_a_scope_though_cuda_runs_in_its_parent():
    run_python(
        PRELUDE
        + """
import multiprocessing

def work(_):
    with seeded(1029):
        return torch.rand(1).item()

expected = work(0)
rand()
with seeded(5), multiprocessing.get_context("fork").Pool(1) as pool:
    assert pool.map(work, [0, 1]) == [expected] * 2
"""
    )


def test_entering_while_a_graph_is_captured_is_refused():
    from seedscope import seeded, snapshot

    x, graph, refused = torch.ones(8, device="cuda"), torch.cuda.CUDAGraph(), []
    before = snapshot()
    with torch.cuda.graph(graph):
        y = x * 2
        try:
            with seeded(1029):
                pass
        except RuntimeError as error:
            refused.append(str(error))
    graph.replay()
    assert "graph is being captured" in refused[0]
    assert torch.equal(y.cpu(), torch.full((8,), 2.0))
    assert before.changed(snapshot()) == ()
