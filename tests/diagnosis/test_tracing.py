"""A trace has every operation of a run, where it was called, and what it read and wrote."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import torch
from torch import nn
from torch.testing._internal.two_tensor import TwoTensor
from torch.utils.data import DataLoader
from traced import trace, traces

from helpers import PROGRAMS, ROOT, run_python
from seedscope import seeded
from seedscope.diagnosis import tracer
from seedscope.diagnosis.compare import PATH, RESULT, first_difference
from seedscope.diagnosis.places import shown
from seedscope.diagnosis.trace import GENERATOR, INPUT, OUTPUT, UNWRITTEN, Tables

HERE = os.path.basename(__file__)


def names(found):
    return [found.operation(index) for index in range(len(found))]


def kinds(found, name):
    """The kinds of the entries of the first operation of that name."""
    return [entry.kind for entry in found.entries(names(found).index(name))]


def place(found, index):
    return shown(found.tables.places.values[found.places[index]])


def line():
    return sys._getframe(1).f_lineno


def test_an_operation_has_the_line_that_called_it():
    found = trace(lambda: torch.ones(3).sin())
    assert names(found) == ["aten.ones.default", "aten.sin.default"]
    assert place(found, 1).endswith(f"{HERE}:{line() - 2}")


def test_a_backward_has_the_line_of_its_forward():
    x = torch.ones(3, requires_grad=True)

    def step():
        loss = x.exp().sum()
        torch.autograd.backward(loss)

    found = trace(step)
    forward, backward = (
        names(found).index("aten.exp.default"),
        names(found).index("aten.mul.Tensor"),
    )
    assert found.forward[backward] == forward
    assert found.forward[forward] == -1
    assert place(found, forward) != place(found, backward)
    assert x.grad is not None


def test_without_torchs_numbers_of_nodes_no_forward_is_named(monkeypatch):
    x = torch.ones(3, requires_grad=True)
    monkeypatch.setattr(tracer, "backward_node", lambda: None)
    monkeypatch.setattr(tracer, "next_sequence_number", lambda: 0)
    found = trace(lambda: torch.autograd.grad(x.exp().sum(), x))
    assert {*found.forward} == {-1}
    assert "aten.mul.Tensor" in names(found)


def test_a_view_is_not_hashed_and_a_write_through_it_is():
    def step():
        x = torch.ones(4)
        x[1:3].mul_(2)
        return x.t().detach()

    found = trace(step)
    assert kinds(found, "aten.slice.Tensor") == []
    assert kinds(found, "aten.detach.default") == []
    assert kinds(found, "aten.mul_.Tensor") == [OUTPUT]


def test_what_comes_from_outside_is_hashed_when_it_is_read_first():
    weight = torch.ones(3)
    found = trace(lambda: weight.sin() + weight.cos())
    assert kinds(found, "aten.sin.default") == [INPUT, OUTPUT]
    assert kinds(found, "aten.cos.default") == [OUTPUT]


def test_a_result_given_by_out_is_hashed_and_not_read():
    out = torch.zeros(3)
    found = trace(lambda: torch.exp(torch.ones(3), out=out))
    assert kinds(found, "aten.exp.out") == [OUTPUT]


def test_each_tensor_of_a_list_is_hashed():
    found = trace(lambda: torch._foreach_add_([torch.ones(2), torch.ones(3)], 1.0))
    assert kinds(found, "aten._foreach_add_.Scalar") == [OUTPUT, OUTPUT]
    found = trace(lambda: torch._foreach_add([torch.ones(2), torch.ones(3)], 1.0))
    assert kinds(found, "aten._foreach_add.Scalar") == [OUTPUT, OUTPUT]


def test_statistics_that_no_schema_names_are_hashed():
    norm = nn.BatchNorm1d(2)
    found = trace(lambda: norm(torch.ones(4, 2)))
    # The mean and the variance are read and written; weight, bias and the input are read.
    assert kinds(found, "aten.native_batch_norm.default") == [INPUT] * 4 + [OUTPUT] * 5


def test_a_draw_has_the_state_of_its_generator():
    generator = torch.Generator()
    found = trace(lambda: torch.rand(2, generator=generator) + torch.rand(2))
    assert kinds(found, "aten.rand.generator") == [GENERATOR, OUTPUT]
    assert kinds(found, "aten.rand.default") == [GENERATOR, OUTPUT]
    given, default = (found.entries(index)[0].place for index in (0, 1))
    assert (given, default) == (1, 0)


def test_unwritten_memory_is_no_difference_before_it_is_read():
    one, other = traces(lambda: torch.empty(1000).fill_(1).sum())
    assert first_difference(one, other) is None
    one, other = traces(lambda: torch.empty(1000)[3:].clone().view(-1) + 1)
    difference = first_difference(one, other)
    assert difference.kind == RESULT
    assert one.operation(difference.first) == "aten.add.Tensor"
    assert difference.has(UNWRITTEN)


def test_unwritten_memory_that_an_operation_resizes_is_no_difference():
    one, other = traces(lambda: torch.ones(2).resize_(2000).shape)
    assert first_difference(one, other) is None
    one, other = traces(lambda: torch.ones(2).resize_(2000).sum())
    assert one.operation(first_difference(one, other).first) == "aten.sum.default"


def test_scalars_that_leave_torch_are_compared():
    x = torch.ones(())
    tables = Tables()
    one = trace(lambda: x.item(), tables)
    x += 1
    other = trace(lambda: x.item(), tables)
    difference = first_difference(one, other)
    assert one.operation(difference.first) == "aten._local_scalar_dense.default"


@torch.library.custom_op("seedscope_test::shift", mutates_args={"target"})
def shift(target: torch.Tensor, amount: float) -> torch.Tensor:
    target += amount
    return target * 2


def test_a_custom_operator_is_one_operation_with_what_it_writes():
    found = trace(lambda: shift(torch.ones(3), 0.5))
    assert names(found)[1:] == ["seedscope_test.shift.default"]
    assert kinds(found, "seedscope_test.shift.default") == [OUTPUT, OUTPUT]


def test_the_operations_inside_of_a_tensor_subclass_are_seen():
    found = trace(lambda: TwoTensor(torch.ones(3), torch.zeros(3)).cos())
    assert names(found).count("aten.cos.default") == 2


def test_operations_that_take_functions_are_seen():
    found = trace(lambda: torch.cond(torch.tensor(True), torch.sin, torch.cos, (torch.ones(2),)))
    assert any(name.startswith(("aten.sin", "cond")) for name in names(found))


def test_fake_tensors_are_passed_by():
    def step():
        with torch._subclasses.FakeTensorMode():
            torch.ones(3) + 1

    assert len(trace(step)) == 0


class Deep(torch.autograd.Function):
    """Its backward runs another backward, down to the threads that autograd keeps for that."""

    @staticmethod
    def forward(ctx, x, depth):
        ctx.depth = depth
        return x * 2

    @staticmethod
    def backward(ctx, grad):
        if ctx.depth:
            with torch.enable_grad():
                x = torch.ones(2, requires_grad=True)
                Deep.apply(x, ctx.depth - 1).sum().backward()
        return grad * 2, None


def test_the_threads_of_autograd_are_traced():
    def step():
        x = torch.ones(2, requires_grad=True)
        Deep.apply(x, 70).sum().backward()

    tables = Tables()
    one, other = trace(step, tables), trace(step, tables)
    assert names(one).count("aten.mul.Tensor") == 2 * 71
    assert len({*one.lanes}) > 1
    assert first_difference(one, other) is None


class Drawn(torch.utils.data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return torch.rand(30_000) + index


def test_forked_workers_write_nothing_to_the_trace():
    def step():
        return sum(batch.sum() for batch in DataLoader(Drawn(), num_workers=2))

    tables = Tables()
    one, other = trace(step, tables), trace(step, tables)
    assert "aten.rand.default" not in names(one)
    assert first_difference(one, other) is None


def test_a_trace_takes_less_than_200_bytes_for_an_operation():
    with seeded(1):
        model = nn.Sequential(*[nn.Linear(8, 8) for _ in range(50)])
    optimizer = torch.optim.Adam(model.parameters(), foreach=False)

    def step():
        model(torch.ones(2, 8)).sum().backward()
        optimizer.step()

    found = trace(step)
    assert len(found) > 1000
    assert found.nbytes / len(found) < 200


def test_where_paths_part_they_are_followed_until_they_meet():
    tables = Tables()

    def step(more):
        x = torch.ones(3).sin()
        for _ in range(more):
            x = x.exp().log()
        return x.cos().tan().relu()

    one, other = trace(lambda: step(0), tables), trace(lambda: step(2), tables)
    difference = first_difference(one, other)
    assert difference.kind == PATH
    assert difference.meets == (0, 4)
    assert (one.operation(difference.first), other.operation(difference.second)) == (
        "aten.cos.default",
        "aten.exp.default",
    )


def test_operations_that_one_run_alone_has_are_harmless_if_all_else_is_equal():
    tables = Tables()

    def step(more):
        x = torch.ones(3).sin()
        for _ in range(more):
            torch.zeros(2)
        return x.cos().tan().relu()

    one, other = trace(lambda: step(0), tables), trace(lambda: step(2), tables)
    difference = first_difference(one, other)
    assert difference.is_harmless
    assert difference.meets == (0, 2)
    assert first_difference(other, one).meets == (2, 0)


def test_a_compiled_region_is_one_operation():
    run_python(
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        + dedent("""
        import torch
        from seedscope.diagnosis.trace import Tables
        from seedscope.diagnosis import runs, regions
        from seedscope.diagnosis.tracer import Tracer

        model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.ReLU())
        compiled = torch.compile(model)
        x = torch.ones(2, 3)
        compiled(x).sum().backward()  # compiled before
        tracer = Tracer(Tables())
        with regions.seen_regions(tracer), tracer:
            compiled(x).sum().backward()
        found = tracer.finish()
        names = [found.operation(index) for index in range(len(found))]
        assert names.count("compiled region") == tracer.regions == 2, names
        assert not any("mm" in name or "relu" in name for name in names), names
        from torch._inductor.output_code import CompiledFxGraph
        assert CompiledFxGraph.__call__.__qualname__ == "CompiledFxGraph.__call__"
        """),
        timeout=300,
    )


def test_results_of_collectives_are_compared_once_they_have_come(tmp_path):
    command = [sys.executable, PROGRAMS / "diagnose_ranks.py", tmp_path / "group"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("reproducible: 2 runs of step are equal") == 2
    assert "rank 0 True" in done.stdout
    assert "rank 1 False ['this process runs in step with others" in done.stdout
