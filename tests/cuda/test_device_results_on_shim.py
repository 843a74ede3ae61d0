"""Device in, device out: functions, losses, gradients, predictions; streams; DLPack."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import shim_build
from classifier import OPTIMIZERS, classifier_step, digits, mlp
from numpy.typing import NDArray
from shim_array import ShimArray
from shim_backend import as_cuda
from shim_driver import ShimDriver
from tolerances import assert_close, assert_same

import gpubp as gp
from gpubp import nn
from gpubp.backends.cuda import CupyBackend
from gpubp.errors import DataError

pytestmark = pytest.mark.skipif(bool(shim_build.MISSING), reason=str(shim_build.MISSING))


class Foreign:
    """An array as PyTorch's look from outside: DLPack, and an old array interface."""

    def __init__(self, array: ShimArray, number: int | None = None) -> None:
        self._array, self._number = array, number
        self.shape, self.dtype = array.shape, f"torch.{array.dtype}"

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        found = {**self._array.__cuda_array_interface__, "version": 2}
        del found["stream"]
        return found

    def __dlpack__(self, *, stream: int | None = None, **options: Any) -> Any:
        return self._array.__dlpack__(stream=stream, **options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self._array.driver.number if self._number is None else self._number


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> CupyBackend:
    return as_cuda(monkeypatch, CupyBackend(driver=ShimDriver()))


def put(backend: CupyBackend, *arrays: NDArray[Any]) -> list[Any]:
    return [backend.to_user_array(a) for a in arrays]


def test_functions_give_what_they_are_given(gpu: CupyBackend) -> None:
    x, y = digits()
    on_device, labels = put(gpu, x, y)
    fn = gp.compile(lambda a, b: {"sum": (a + 1.0).sum(), "both": (a * 2.0, b)}, device="cuda")
    host, device = fn(x, y), fn(on_device, labels)
    assert isinstance(host["sum"], np.float32) and type(host["both"][0]) is np.ndarray
    assert isinstance(device["sum"], ShimArray) and device["sum"].shape == ()
    assert_same(device["sum"].get(), np.asarray(host["sum"]))
    for a, b in zip(device["both"], host["both"], strict=True):
        assert_same(a.get(), b)
    assert_same(fn(on_device, y)["both"][1].get(), y)  # one is enough
    again = fn(on_device, labels)  # bound calls are for host arrays
    assert_same(again["both"][0].get(), 2 * x)


def test_results_own_their_memory(gpu: CupyBackend) -> None:
    x, _ = digits()
    double = gp.compile(lambda a: a * 2.0, device="cuda")
    (first,) = put(gpu, x)
    one, two = double(first), double(put(gpu, x + 1)[0])
    kept = double(one)
    del first, one
    assert_same(two.get(), 2 * (x + 1))
    assert_same(kept.get(), 4 * x)


def test_losses_stay_on_the_device(gpu: CupyBackend) -> None:
    x, y = digits(samples=100)
    seen: list[tuple[int, int]] = []
    found: dict[str, list[Any]] = {}
    for name, arrays in (("host", [x, y]), ("device", put(gpu, x, y))):
        model = mlp()
        step = classifier_step(OPTIMIZERS["adam"], model, backend=gpu)
        run = step.run(*arrays, batch_size=32, epochs=3, seed=2)
        told = step.run(
            *arrays, batch_size=32, epochs=2, seed=3, progress=lambda *at: seen.append(at)
        )
        found[name] = [run, told, step(*arrays), *model.state_dict().values()]
    assert seen == [(1, 2), (2, 2)] * 2
    for host, device in zip(found["host"], found["device"], strict=True):
        assert_same(device.get() if isinstance(device, ShimArray) else device, np.asarray(host))
    assert all(isinstance(v, ShimArray) for v in found["device"][:3])


def test_schedules_write_losses_in_segments(gpu: CupyBackend) -> None:
    from gpubp import optim

    x, y = digits(samples=96)
    losses = []
    for arrays in ([x, y], put(gpu, x, y)):
        model, loss_fn = mlp(), nn.CrossEntropyLoss()
        optimizer = optim.SGD(model.parameters(), lr=0.1)
        scheduler = optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.99)
        scheduler.table.capacity = 4
        step = gp.compile_step(
            lambda a, b, m=model, f=loss_fn: f(m(a), b), optimizer, scheduler=scheduler, backend=gpu
        )
        losses.append(step.run(*arrays, batch_size=8, seed=1))
    assert_same(losses[1].get(), losses[0])


def test_gradients_of_device_arrays_are_those_of_the_host(gpu: CupyBackend) -> None:
    rng = np.random.default_rng(0)
    x, w = (rng.normal(size=s).astype(np.float32) for s in ((5, 3), (3, 4)))
    there = put(gpu, x, w)

    def loss(a: Any, b: Any) -> Any:
        return gp.ops.mean(gp.ops.square(gp.ops.tanh(a @ b) - 0.5))

    for argnums in (0, (0, 1)):
        value, grads = gp.value_and_grad(loss, argnums)(*there)
        expected, expected_grads = gp.value_and_grad(loss, argnums)(x, w)
        assert_close(value.get(), np.asarray(expected))
        pairs = [(grads, expected_grads)] if argnums == 0 else zip(grads, expected_grads)
        for found, wanted in pairs:
            assert isinstance(found, ShimArray)
            assert_close(found.get(), wanted)
    second = gp.grad(lambda a: gp.ops.sum(gp.grad(lambda z: loss(z, w.copy()))(a)))
    assert_close(gp.grad(lambda a, b: loss(a, b))(*there).get(), gp.grad(loss)(x, w))
    with pytest.raises(DataError, match="do not mix"):
        gp.grad(loss)(there[0], w)
    assert_close(second(x), second(there[0]).get())


def test_gradients_by_parameters_and_structures(gpu: CupyBackend) -> None:
    x, _ = digits()
    weight = nn.Parameter(np.full((64, 3), 0.01, np.float32))

    def loss(w: Any, data: dict[str, Any]) -> Any:
        return gp.ops.sum(gp.ops.tanh(data["x"] @ w) * data["scale"])

    expected = gp.grad(loss, (0, 1))(weight, {"x": x, "scale": 2.0})
    found = gp.grad(loss, (0, 1))(weight, {"x": put(gpu, x)[0], "scale": 2.0})
    assert_close(found[0].get(), expected[0])
    assert_close(found[1]["x"].get(), expected[1]["x"])
    assert_close(found[1]["scale"].get(), np.asarray(expected[1]["scale"]))
    step = gp.grad(lambda w: gp.ops.sum(gp.ops.square(w)))  # host values alone stay on the host
    assert type(step(weight)) is np.ndarray


def test_vjp_computes_the_forward_pass_once(gpu: CupyBackend) -> None:
    x, _ = digits()
    (there,) = put(gpu, x)

    def fn(a: Any) -> Any:
        return gp.ops.dropout(gp.ops.exp(a * 0.1), 0.4)

    gp.manual_seed(5)
    out, pull = gp.vjp(fn, x)
    (expected,) = pull(np.ones_like(out))
    gp.manual_seed(5)
    there_out, there_pull = gp.vjp(fn, there)
    assert_close(there_out.get(), out)
    (found,) = there_pull(put(gpu, np.ones_like(out))[0])
    assert_close(found.get(), expected)
    assert gp.ops.random.default_generator.state.value[1] == 1


def test_a_pullback_on_the_device_is_a_value(gpu: CupyBackend) -> None:
    weight = nn.Parameter(np.array([2.0, 3.0], np.float32))
    (there,) = put(gpu, np.array([1.0, 2.0], np.float32))
    _, pull = gp.vjp(lambda a: a * a * weight, there)
    weight.value[...] = 50.0
    there._view()[...] = 50.0
    (g,) = put(gpu, np.ones(2, np.float32))
    for _ in range(2):
        assert_close(pull(g)[0].get(), np.array([4.0, 12.0], np.float32))
    with pytest.raises(DataError, match="do not mix"):
        pull(np.ones(2, np.float32))
    _, on_host = gp.vjp(lambda a: a * 2.0, np.ones(2, np.float32))
    with pytest.raises(DataError, match="do not mix"):
        on_host(g)


def test_predictions_of_device_arrays_are_those_of_the_host(gpu: CupyBackend) -> None:
    x, y = digits(samples=70)
    model = mlp()
    trainer = gp.Trainer(model, nn.CrossEntropyLoss(), OPTIMIZERS["sgd"](model.parameters()),
                         device="cuda")  # fmt: skip
    expected = gp.compile(model, backend="numpy")(x)
    (there,) = put(gpu, x)
    for batch_size in (7, 32, 1000):
        assert_close(trainer.predict(x, batch_size), expected)
        found = trainer.predict(there, batch_size)
        assert isinstance(found, ShimArray)
        assert_close(found.get(), expected)
    with pytest.raises(DataError, match="empty"):
        trainer.predict(put(gpu, x[:0])[0])
    trainer.fit(x, y, verbose=False)
    assert_close(trainer.predict(there).get(), gp.compile(model, backend="numpy")(x))


def test_predictions_of_several_outputs(gpu: CupyBackend) -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = mlp()

        def forward(self, x: Any) -> Any:
            y = self.body(x)
            return {"scores": y, "rest": (y.sum(1), x * 2.0)}

    x, _ = digits(samples=70)
    model = Both()
    trainer = gp.Trainer(model, nn.CrossEntropyLoss(), OPTIMIZERS["sgd"](model.parameters()),
                         device="cuda")  # fmt: skip
    expected = gp.compile(model, backend="numpy")(x)
    (there,) = put(gpu, x)
    for found, get in ((trainer.predict(x, 32), np.asarray), (trainer.predict(there, 7), _got)):
        assert_close(get(found["scores"]), expected["scores"])
        for a, b in zip(found["rest"], expected["rest"], strict=True):
            assert_close(get(a), b)


def _got(array: Any) -> Any:
    assert isinstance(array, ShimArray)
    return array.get()


def test_parameters_and_state_follow(gpu: CupyBackend) -> None:
    """Read, set and saved between runs on the device as between runs on the host."""
    x, y = digits(samples=64)
    found = []
    for backend, arrays in ((gpu, put(gpu, x, y)), (gpu, [x, y])):
        model = mlp()
        optimizer = OPTIMIZERS["adam"](model.parameters())
        loss_fn = nn.CrossEntropyLoss()
        step = gp.compile_step(
            lambda a, b, m=model, f=loss_fn: f(m(a), b), optimizer, backend=backend
        )
        step.run(*arrays, batch_size=16, seed=1)
        saved = {k: v.copy() for k, v in model.state_dict().items()}
        moments = optimizer.state_dict()
        first = step.run(*arrays, batch_size=16, seed=2)
        model.load_state_dict(saved)
        optimizer.load_state_dict(moments)
        again = step.run(*arrays, batch_size=16, seed=2)
        model[0].weight.value = saved["0.weight"] * 0.5
        model[0].bias.value[...] = 0.25
        after = step(*arrays)
        losses = [a.get() if hasattr(a, "get") else np.asarray(a) for a in (first, again, after)]
        assert_same(losses[1], losses[0])
        found.append([*losses, *model.state_dict().values()])
    for device, host in zip(*found):
        assert_same(device, host)


def test_the_users_stream_comes_before_and_after(gpu: CupyBackend) -> None:
    """Order without waiting: the host does not synchronize where nobody on it looks."""
    driver = gpu.driver
    assert isinstance(driver, ShimDriver)
    x, _ = digits()
    (there,) = put(gpu, x)
    double = gp.compile(lambda a: a * 2.0, device="cuda")
    double(there)
    for stream in (1, 7):
        driver.stream = stream
        driver.log.clear()
        double(there)
        kinds = [entry for entry in driver.log if entry[0] != "launch"]
        assert kinds == [("wait_for", stream), ("make_wait", stream)]
        assert driver.log[0] == ("wait_for", stream) and driver.log[-1] == ("make_wait", stream)


def test_bad_labels_are_an_error_of_the_run_that_met_them(gpu: CupyBackend) -> None:
    x, y = digits()
    step = classifier_step(OPTIMIZERS["sgd"], backend=gpu)
    there = put(gpu, x, y)
    step(*there)
    y[3] = 10
    with pytest.raises(DataError, match="label is out of range"):
        step(there[0], put(gpu, y)[0])
    gather = gp.compile(lambda a, i: gp.ops.gather(a, i), device="cuda")
    with pytest.raises(DataError, match="index is out of range"):
        gather(*put(gpu, x, np.array([0, len(x)])))


def test_the_host_waits_for_a_library_without_streams(gpu: CupyBackend) -> None:
    """A library that does not say on which stream it works: the host waits for the run."""
    driver = gpu.driver
    assert isinstance(driver, ShimDriver)
    x, y = digits()
    there = put(gpu, x, y)
    step = classifier_step(OPTIMIZERS["sgd"], backend=gpu)
    other = classifier_step(OPTIMIZERS["sgd"], backend=gpu)
    driver.stream = 9
    driver.log.clear()
    loss = step(*map(Foreign, there))
    assert ("dlpack", 9) in driver.log and ("wait_for", 9) in driver.log
    assert ("synchronize", 0) in driver.log
    assert isinstance(loss, ShimArray)
    assert_same(loss.get(), np.asarray(other(x, y)))
    capsule = loss.__dlpack__(stream=1)
    assert "dltensor" in repr(capsule) and loss.__dlpack_device__() == (2, 0)
    driver.log.clear()
    gp.compile(lambda a: a + 1.0, device="cuda")(Foreign(there[0]))
    assert ("synchronize", 0) in driver.log
    assert_same(gp.ops.exp(Foreign(there[0])).get(), gp.ops.exp(there[0]).get())


@pytest.mark.parametrize("what", ["an op", "a gradient"])
def test_at_once_the_host_waits_for_other_libraries(
    gpu: CupyBackend, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPUBP_VERIFY", "0")  # which waits as well
    driver = gpu.driver
    assert isinstance(driver, ShimDriver)
    (there,) = put(gpu, digits()[0])
    run = gp.ops.exp if what == "an op" else gp.grad(lambda a: gp.ops.sum(a * a))
    for value, waits in ((there, False), (Foreign(there), True)):
        driver.log.clear()
        run(value)
        assert (("synchronize", 0) in driver.log) == waits


def test_another_device_is_refused(gpu: CupyBackend) -> None:
    x, _ = digits()
    double = gp.compile(lambda a: a * 2.0, device="cuda")
    (there,) = put(gpu, x)
    with pytest.raises(DataError, match=r"argument 0 is on cuda:1.*device='cuda:1'"):
        double(Foreign(there, number=1))
    (elsewhere,) = put(CupyBackend(driver=ShimDriver(number=3)), x)
    with pytest.raises(DataError, match="cuda:3"):
        double(elsewhere)
    second = CupyBackend(driver=ShimDriver(number=2))
    plain = SimpleNamespace(__cuda_array_interface__=there.__cuda_array_interface__)
    with pytest.raises(DataError, match="is on cuda:0, but this runs on cuda:2"):
        gp.compile(lambda a: a * 2.0, backend=second)(plain)
    assert_same(double(plain).get(), 2 * x)


def test_what_cannot_be_shared(gpu: CupyBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    x, _ = digits()
    (there,) = put(gpu, x)
    double = gp.compile(lambda a: a * 2.0, device="cuda")

    def refuse(*_: Any, **__: Any) -> Any:
        raise BufferError("it requires grad; use detach()")

    monkeypatch.setattr(Foreign, "__dlpack__", refuse)
    with pytest.raises(DataError, match=r"argument 0 cannot be read.*detach"):
        double(Foreign(there))
    with pytest.raises(DataError, match=r"cannot be read through DLPack.*detach"):
        gp.ops.exp(Foreign(there))
    step = classifier_step(OPTIMIZERS["sgd"], backend=gpu)
    odd = ShimArray(there.driver, there.address + 4, (10, 64), np.float32, there)
    with pytest.raises(DataError, match=r"multiple of 16 bytes.*copy"):
        step(odd, put(gpu, np.zeros(10, np.int64))[0])


def test_host_memory_of_other_libraries() -> None:
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    double = gp.compile(lambda a: a * 2.0, backend="numpy")
    assert_same(double(torch.arange(3.0)), np.arange(3, dtype=np.float32) * 2)
    with pytest.raises(DataError, match=r"torch.*DLPack"):
        double(torch.arange(3.0, requires_grad=True))
    with pytest.raises(DataError, match=r"torch.*DLPack"):
        double(torch.arange(3, dtype=torch.bfloat16))
