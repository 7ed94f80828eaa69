"""Bytes that autograd holds, against counts by hand. Tensors have 256 float32 numbers, 1 KiB, unless said."""

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import psutil
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.checkpoint import checkpoint

from neuralode_exp.build import build_task
from neuralode_exp.config import Config
from neuralode_exp.tracking.memory import MIB, AllocatedBytes, Peaks, SavedTensors, peak_rss_mib
from tests.conftest import TINY_IMAGES

KIB = 1024
Compose = Callable[..., Config]


def leaf() -> Tensor:
    return torch.linspace(-1, 1, 256, requires_grad=True)


def tanh_chain(x: Tensor, length: int) -> Tensor:
    """Each tanh saves its output."""
    for _ in range(length):
        x = x.tanh()
    return x


def measured(loss_of: Callable[[], Tensor], exclude: Any = (), **backward: bool) -> SavedTensors:
    """The probe of a forward pass that gives a loss, and of its backward."""
    with SavedTensors(exclude) as probe:
        loss = loss_of()
        probe.backward_starts()
        loss.backward(**backward)
    return probe


@pytest.mark.parametrize("length", [1, 7])
def test_chain_holds_one_output_a_link(length: int) -> None:
    x = leaf()
    probe = measured(lambda: tanh_chain(x, length).sum())
    assert probe.saved_bytes == probe.peak_bytes == length * KIB
    assert probe.saved_mib == probe.autograd_peak_mib == length * KIB / MIB


def test_views_and_repeated_saves_share_their_storage() -> None:
    x = leaf()

    def loss() -> Tensor:
        y = x.tanh()  # saves y
        z = y[:128] * y.view(16, 16).t().reshape(-1)[128:]  # a view of y, and a copy (1 KiB) of its transpose
        return (z + y[:128].square()).sum()  # y again

    assert measured(loss).saved_bytes == 2 * KIB


def test_view_counts_the_whole_storage_that_it_keeps_alive() -> None:
    x = leaf()
    assert measured(lambda: x.exp()[:1].square().sum()).saved_bytes == KIB  # exp saves its output, square a view of it
    assert measured(lambda: (x * 2)[:1].square().sum()).saved_bytes == KIB  # only the view is saved


def test_parameters_and_buffers_are_not_counted() -> None:
    model = nn.Linear(256, 256)
    model.register_buffer("scale", torch.full((256,), 2.0))
    x = torch.ones(4, 256, requires_grad=True)  # 4 KiB
    for exclude, expected in ((model, 4 * KIB), ((model.weight,), 5 * KIB), ((), 5 * KIB + 256 * KIB)):
        probe = measured(lambda: (model(x) * model.scale).sum(), exclude)  # saves x, the weight, the buffer
        assert probe.saved_bytes == expected


def test_graph_that_is_dropped_before_backward_counts_in_the_peak_only() -> None:
    x = leaf()

    def loss() -> Tensor:
        tanh_chain(x, 5)
        return tanh_chain(x, 2).sum()

    probe = measured(loss)
    assert probe.saved_bytes == 2 * KIB
    assert probe.peak_bytes == 5 * KIB


def test_backward_releases_as_it_goes_unless_the_graph_is_retained() -> None:
    x = leaf()
    for retain in (False, True):
        with SavedTensors() as probe:
            loss = tanh_chain(x, 3).sum()
            probe.backward_starts()
            loss.backward(retain_graph=retain)
            tanh_chain(x, 3)
        assert probe.peak_bytes == (6 if retain else 3) * KIB


class Recompute(torch.autograd.Function):
    """Keeps x alone; backward builds the chain again and differentiates it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, length: int) -> Tensor:
        ctx.save_for_backward(x)
        ctx.length = length
        return tanh_chain(x, length)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            y = tanh_chain(x, ctx.length)
        return torch.autograd.grad(y, x, grad)[0], None


def test_graph_built_inside_backward_is_counted() -> None:
    x = leaf()
    # The first block holds x, the second the result of the first.
    probe = measured(lambda: Recompute.apply(Recompute.apply(x, 5), 4).sum())
    assert probe.saved_bytes == 2 * KIB
    # The second block's 4 outputs on top of both; then x and the first block's 5.
    assert probe.peak_bytes == 6 * KIB
    gradient, x.grad = x.grad, None
    tanh_chain(x, 9).sum().backward()
    assert torch.equal(x.grad, gradient)


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpoint_is_counted_by_its_inputs(reentrant: bool) -> None:
    x, chain = leaf(), partial(tanh_chain, length=5)
    probe = measured(lambda: checkpoint(chain, x, use_reentrant=reentrant, preserve_rng_state=False).sum())
    assert probe.saved_bytes == KIB
    if reentrant:  # what the other one recomputes is not seen
        assert probe.peak_bytes == 6 * KIB


def test_second_derivatives_stay_right() -> None:
    x = leaf()
    with SavedTensors():
        y = x.tanh()
        (first,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), x)
    torch.testing.assert_close(second, -2 * y * (1 - y**2))


def test_measuring_changes_no_gradient() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(inplace=True), nn.Flatten())
    x = torch.randn(2, 1, 6, 6)
    gradients = []
    for probed in (False, True):
        model.zero_grad()
        if probed:
            measured(lambda: model(x).square().sum(), exclude=model)
        else:
            model(x).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))


def test_vmapped_and_forward_mode_functions_can_be_measured() -> None:
    x = leaf()
    assert measured(lambda: torch.func.vmap(torch.tanh)(x.view(16, 16)).sum()).saved_bytes == KIB
    x = leaf()
    measured(lambda: sum(torch.func.jvp(torch.sin, (x,), (torch.ones(256),))).sum())
    torch.testing.assert_close(x.grad, x.cos().detach() - x.sin().detach())


def test_peak_of_the_process_is_at_least_what_it_takes_now() -> None:
    ones = torch.ones(64 * MIB // 4)
    now = psutil.Process().memory_info().rss / MIB
    peak = peak_rss_mib()
    assert peak >= now - 1  # the kernel counts pages in batches of a thread
    del ones
    assert peak_rss_mib() >= peak


def test_peak_counts_what_is_made_while_it_is_alive() -> None:
    x = torch.ones(256)
    with AllocatedBytes() as allocated:
        y = torch.relu(x)  # 1 KiB; x was there before
        y[:128].add_(1)  # a view, in place, and a number
        z = y + x  # 2
        del y
        del z
        torch.relu(torch.relu(x)).sum()  # 1, 2, and the sum of 4 bytes once one is gone
    assert allocated.peak_bytes == 2 * KIB


def test_freeing_what_was_there_before_makes_no_room() -> None:
    held = [torch.ones(2560) for _ in range(4)]
    with AllocatedBytes() as allocated:
        del held
        torch.ones(256)
    assert allocated.peak_bytes == KIB


def test_peak_counts_what_backward_makes() -> None:
    x = leaf()
    with AllocatedBytes() as allocated:
        tanh_chain(x, 5).sum().backward()
    # Five outputs, the sum and its gradient; while tanh's gradient is made from the one that came.
    assert allocated.peak_bytes == pytest.approx(5 * KIB + 2 * KIB, abs=KIB)
    assert x.grad is not None


class AliveTensors(TorchDispatchMode):
    """The most bytes of the tensors that operations return, by another way: their storages, while they are alive."""

    def __init__(self) -> None:
        super().__init__()
        self._alive: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        self._bytes = self.peak_bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        before = {id(x.untyped_storage()) for x in tree_iter((args, kwargs)) if isinstance(x, Tensor)}
        for storage in (x.untyped_storage() for x in tree_iter(out) if isinstance(x, Tensor)):
            if (key := id(storage)) not in before and key not in self._alive:
                self._alive[key] = weakref.ref(storage, partial(self._ended, key, storage.nbytes()))
                self._bytes += storage.nbytes()
        self.peak_bytes = max(self.peak_bytes, self._bytes)
        return out

    def _ended(self, key: int, n_bytes: int, _: object) -> None:
        del self._alive[key]
        self._bytes -= n_bytes


@pytest.mark.parametrize(
    "words",
    [
        ("dataset=circle", "model=odenet"),
        ("dataset=circle", "model=rknet", "solver=rk4", "trainer.replicas=4"),
        ("dataset=circle", "model=odenet", "model.gradient=checkpoint"),
        ("dataset=circle", "model=resnet"),
        ("dataset=two-moons", "model=odenet", "solver=rk4"),
        ("dataset=two-moons", "model=rknet", "solver=rk4", "model.trace=hutchinson"),
        (*TINY_IMAGES, "model=mlp"),
        (*TINY_IMAGES, "model=resnet", "model.blocks=2"),
        (*TINY_IMAGES, "model=rknet", "solver=dopri5", "solver.rtol=1e-2"),
        (*TINY_IMAGES, "model=odenet", "solver=rk4"),
        (*TINY_IMAGES, "model=odenet", "model.gradient=checkpoint", "solver=rk4", "solver.step_size=0.5"),
    ],
)
def test_peak_of_equal_steps_is_equal_and_that_of_their_storages(compose: Compose, words: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    task = build_task(compose(*words), torch.device("cpu"))
    optimizer = torch.optim.Adam(task.module.parameters(), lr=0.0)  # each step is the same

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        torch.manual_seed(1)
        task.loss(1).sum().backward()
        optimizer.step()

    step()
    peaks = Peaks(torch.device("cpu"))
    found = []
    for _ in range(2):
        with peaks.of_step():
            step()
        found.append(peaks.step_mib)
    with AliveTensors() as alive:
        step()
    assert found[0] == found[1]
    if "model=mlp" in words or "dataset=mnist" not in words:
        assert alive.peak_bytes / MIB == pytest.approx(found[0], rel=0.03)
    else:  # a convolution on a CPU makes blocked copies within itself, which no operation returns
        assert 0.7 * found[0] < alive.peak_bytes / MIB <= found[0]


def test_a_step_that_the_callers_profiler_watches_is_not_measured() -> None:
    peaks = Peaks(torch.device("cpu"))
    with torch.autograd.profiler.profile(), peaks.of_step():
        torch.ones(256)
    assert peaks.step_mib is None


def test_only_the_first_run_of_a_process_knows_its_resident_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Peaks, "_runs_of_process", 0)
    first, second = (Peaks(torch.device("cpu")).values() for _ in range(2))
    assert first["memory/peak_rss_mib"] > 0
    assert second == {}  # a CPU has no peak of its own either


@pytest.mark.cuda
def test_device_peak_counts_from_its_reset_and_keeps_what_was_before_a_step() -> None:
    device = torch.device("cuda")
    torch.ones(32 * MIB // 4, device=device)
    held = torch.ones(MIB // 4, device=device)
    base = torch.cuda.memory_allocated(device) / MIB
    peaks = Peaks(device)
    assert peaks.values()["memory/peak_device_mib"] == pytest.approx(base)
    torch.ones(8 * MIB // 4, device=device)
    with peaks.of_step():
        torch.ones(4 * MIB // 4, device=device)
    assert peaks.step_mib == pytest.approx(4)
    assert peaks.values()["memory/peak_device_mib"] == pytest.approx(base + 8)
    peaks.reset_device()
    assert peaks.values()["memory/peak_device_mib"] == pytest.approx(base)
    del held
