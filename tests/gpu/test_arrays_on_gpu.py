"""Arrays of CuPy, PyTorch and JAX on a GPU, in and out; streams; data in chunks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from classifier import OPTIMIZERS, classifier_step, digits, mlp
from tolerances import assert_close, assert_same

import gpubp as gp
from gpubp import nn, ops
from gpubp.backends.cuda import CupyBackend, chunks
from gpubp.errors import DataError


@pytest.fixture
def cupy(backend: CupyBackend) -> Any:
    return pytest.importorskip("cupy", reason="needs CuPy")


def trained(backend: CupyBackend, arrays: Any, **options: Any) -> list[Any]:
    model = mlp()
    step = classifier_step(OPTIMIZERS["adam"], model, backend=backend)
    losses = step.run(*arrays, batch_size=32, epochs=3, seed=1, **options)
    return [losses, step(*[a[:32] for a in arrays]), *model.state_dict().values()]


def same(found: list[Any], expected: list[Any]) -> None:
    for a, b in zip(found, expected, strict=True):
        assert_same(a.get() if hasattr(a, "get") else np.asarray(a), np.asarray(b))


def test_results_stay_where_the_data_are(cupy: Any, backend: CupyBackend) -> None:
    data = digits(samples=500)
    there = [cupy.asarray(a) for a in data]
    found = trained(backend, there)
    assert isinstance(found[0], cupy.ndarray) and isinstance(found[1], cupy.ndarray)
    same(found, trained(backend, data))
    model = mlp()
    trainer = gp.Trainer(
        model, nn.CrossEntropyLoss(), OPTIMIZERS["sgd"](model.parameters()), backend=backend
    )
    predicted = trainer.predict(there[0], 64)
    assert isinstance(predicted, cupy.ndarray)
    assert_same(predicted.get(), trainer.predict(data[0], 64))


def test_results_own_their_memory(cupy: Any, backend: CupyBackend) -> None:
    double = gp.compile(lambda a: a * 2.0, backend=backend)
    kept = [double(cupy.full(1000, i, cupy.float32)) for i in range(50)]
    for i, value in enumerate(kept):
        assert (value.get() == 2 * i).all()


@pytest.mark.parametrize("non_blocking", [False, True])
def test_the_users_stream_is_respected(non_blocking: bool, cupy: Any, backend: CupyBackend) -> None:
    """Slow work before and after on a stream of the user's, with no synchronisation in between."""
    double = gp.compile(lambda a: a * 2.0, backend=backend)
    stream = cupy.cuda.Stream(non_blocking=non_blocking)
    with stream:
        a = cupy.ones((3000, 3000), cupy.float32)
        double(a)
        for _ in range(20):
            b = a @ a / 3000.0  # stays 1
            c = double(b) / 2.0
            a = c @ c / 3000.0
            b.fill(7.0)  # after the read
        result = a.get()
    assert (result == 1.0).all()


@pytest.mark.parametrize("library", ["torch", "jax"])
def test_arrays_of_other_libraries_train_alike(
    library: str, cupy: Any, backend: CupyBackend
) -> None:
    data = digits(samples=100)
    if library == "torch":
        torch = pytest.importorskip("torch", reason="needs PyTorch")
        if not torch.cuda.is_available():
            pytest.skip("needs PyTorch with CUDA")
        there: list[Any] = [torch.from_numpy(a).cuda() for a in data]
    else:
        jax = pytest.importorskip("jax", reason="needs JAX")
        if jax.default_backend() != "gpu":
            pytest.skip("needs JAX with CUDA")
        there = [jax.numpy.asarray(data[0]), jax.numpy.asarray(data[1].astype(np.int32))]
        data = (data[0], data[1].astype(np.int32))
    found = trained(backend, there)
    same(found, trained(backend, data))
    if library == "torch":
        assert_same(torch.from_dlpack(found[0]).cpu().numpy(), found[0].get())
        with pytest.raises(DataError, match="argument 0 cannot be read"):
            classifier_step(OPTIMIZERS["sgd"], backend=backend)(there[0].requires_grad_(), there[1])


def test_ops_at_once_and_gradients(cupy: Any) -> None:
    rng = np.random.default_rng(0)
    x, w = (rng.normal(size=s).astype(np.float32) for s in ((50, 30), (30, 40)))
    there = [cupy.asarray(a) for a in (x, w)]
    found = ops.softmax(ops.matmul(*there) * 0.5 + 1)
    assert isinstance(found, cupy.ndarray)
    assert_close(found.get(), ops.softmax(ops.matmul(x, w) * 0.5 + 1))

    def loss(a: Any, b: Any) -> Any:
        return ops.mean(ops.square(ops.tanh(a @ b * 0.1)))

    for device, host in zip(gp.grad(loss, (0, 1))(*there), gp.grad(loss, (0, 1))(x, w)):
        assert isinstance(device, cupy.ndarray)
        assert_close(device.get(), host)
    with pytest.raises(DataError, match="do not mix"):
        ops.add(there[0], x)


def test_chunks_give_the_bits_of_resident_data(backend: CupyBackend) -> None:
    data = digits(samples=5000)
    small = CupyBackend(resident_bytes=1 << 18)
    same(trained(small, data), trained(backend, data))
    model = mlp()
    made = [
        gp.Trainer(model, nn.CrossEntropyLoss(), OPTIMIZERS["sgd"](model.parameters()), backend=b)
        for b in (small, backend)
    ]
    assert_same(made[0].predict(data[0]), made[1].predict(data[0]))


def test_more_data_than_memory(
    backend: CupyBackend, monkeypatch: pytest.MonkeyPatch, cupy: Any
) -> None:
    """The share of memory that counts as enough is made small, so that the data exceed it."""
    x = np.ones((400_000, 256), np.float32)
    monkeypatch.setattr(chunks, "RESIDENT_SHARE", x.nbytes / 4 / backend.driver.free_bytes())
    before = backend.driver.free_bytes()
    model = nn.Linear(256, 4)
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    step = gp.compile_step(lambda a: ops.mean(ops.square(model(a))), optimizer, backend=backend)
    assert np.isfinite(step.run(x, batch_size=4096)).all()
    assert before - backend.driver.free_bytes() < x.nbytes / 2


def test_another_device_is_refused(cupy: Any, backend: CupyBackend) -> None:
    if cupy.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("needs two GPUs")
    with cupy.cuda.Device(1):
        elsewhere = cupy.ones(3, cupy.float32)
    with pytest.raises(DataError, match=r"cuda:1, but this runs on cuda:0"):
        gp.compile(lambda a: a * 2.0, backend=backend)(elsewhere)
    assert ops.exp(elsewhere).device.id == 1


def test_small_numbers_are_kept(backend: CupyBackend) -> None:
    """No flush to zero: 1e-40 is no normal float32."""
    x = np.full(10, 1e-40, np.float32)
    assert_same(gp.compile(lambda a: a * 0.5, backend=backend)(x), x * np.float32(0.5))
