"""What is called wrongly: every public function and class, step by step as users do.

A target takes a `Draw` and calls gpubp; whatever it calls may be refused. Each names in its text
what it called with what.
"""

from __future__ import annotations

import contextlib
import inspect
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_values import Draw

import gpubp as gp
from gpubp import data, nn, ops, optim, train
from gpubp.cli import main
from gpubp.nn import functional
from gpubp.optim import lr_scheduler

Target = Callable[[Draw], Any]
LEFT_OUT = {"Module", "Optimizer", "LRScheduler", "Summary", "SummaryRow", "ParamGroup", "Table"}
LEFT_OUT |= {"TensorBoard", "WandbLogger", "MLflowLogger", "TrackioLogger", "RunFolder"}
LEFT_OUT |= {"Callback", "Tracker", "custom_op", "init", "update", "Generator"}
LEFT_OUT |= {"functional"}


def _arguments(d: Draw, fn: Any) -> tuple[list[Any], dict[str, Any]]:
    """By its signature: all that are required, some that are not."""
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for name, parameter in inspect.signature(fn).parameters.items():
        if parameter.kind is parameter.VAR_POSITIONAL:
            args += [d.value(name) for _ in range(d.choice([1, 1, 2]))]
        elif parameter.kind is parameter.VAR_KEYWORD or name == "self":
            continue
        elif parameter.kind is parameter.KEYWORD_ONLY or kwargs:
            if d.random() < 0.3:
                kwargs[name] = d.value(name)
        elif parameter.default is parameter.empty:
            args.append(d.value(name))
        elif d.random() < 0.3:
            kwargs[name] = d.value(name)
    return args, kwargs


def _call(d: Draw, fn: Any) -> Any:
    args, kwargs = _arguments(d, fn)
    return fn(*args, **kwargs)


def _op(name: str, module: Any = ops) -> Target:
    """At once, or with its arrays traced."""
    fn = getattr(module, name)

    def at_once(d: Draw) -> Any:
        args, kwargs = _arguments(d, fn)
        if d.random() < 0.6:
            return fn(*args, **kwargs)
        places = [i for i, a in enumerate(args) if isinstance(a, np.ndarray)]

        def traced(*arrays: Any) -> Any:
            given = list(args)
            for i, a in zip(places, arrays, strict=True):
                given[i] = a
            return fn(*given, **kwargs)

        backend = d.choice(["numpy", "numba"])
        return gp.compile(traced, backend=backend)(*[args[i] for i in places])

    return at_once


def _module(name: str) -> Target:
    """Made, shown, called, and its state loaded."""
    make = getattr(nn, name)

    def used(d: Draw) -> Any:
        made = _call(d, make)
        repr(made)
        if not isinstance(made, nn.Module):
            return
        if type(made).forward is not nn.Module.forward and d.random() < 0.9:
            _call(d, made.forward)
        if d.random() < 0.3:
            state = made.state_dict()
            for key in list(state):
                if d.random() < 0.5:
                    state[key] = d.anything()
            made.load_state_dict(d.choice([state, {**state, "more": 1}, {}, d.anything()]))

    return used


def _optimizer(name: str) -> Target:
    make = getattr(optim, name)

    def used(d: Draw) -> Any:
        args, kwargs = _arguments(d, make)
        made = make(*args, **kwargs)
        if name == "EMA":
            return made.load_state_dict(d.choice([made.state_dict(), {}, d.anything()]))
        kind = d.choice(["set", "group", "state", "state", "step"])
        if kind == "set":
            key = d.choice([*made.defaults, "nope"])
            made.param_groups[0][key] = d.value(key)
        elif kind == "group":
            made.add_param_group(
                d.choice([{"params": d.params()}, {"params": d.params(), "lr": 1}, d.anything()])
            )
        elif kind == "state":
            made.load_state_dict(_bent(d, made.state_dict()))
        return _trained(made, d)

    return used


def _bent(d: Draw, state: Any) -> Any:
    """A state with something else in one place."""
    if not isinstance(state, dict) or not state or d.random() < 0.2:
        return d.anything()
    key = d.choice(list(state))
    changed = dict(state)
    if d.random() < 0.2:
        del changed[key]
        return changed
    inner = state[key]
    if isinstance(inner, list) and inner and d.random() < 0.7:
        changed[key] = [_bent(d, inner[0]), *inner[1:]]
    else:
        changed[key] = _bent(d, inner)
    return changed


def _trained(made: Any, d: Draw) -> Any:
    """A step with whatever parameters it has."""
    params = list(made.parameters())
    step = gp.compile_step(
        lambda x: sum((ops.sum(p * 1.0) for p in params), ops.sum(x)), made, backend="numpy"
    )
    return step(np.ones((2, 3), np.float32))


def _schedule(name: str) -> Target:
    make = getattr(lr_scheduler, name)

    def used(d: Draw) -> Any:
        made = _call(d, make)
        for _ in range(3):
            made.step(*[d.anything()] * (name == "ReduceLROnPlateau"))
        made.load_state_dict(d.choice([made.state_dict(), _bent(d, made.state_dict())]))
        return made.step(*[0.5] * (name == "ReduceLROnPlateau"))

    return used


def compiled(d: Draw) -> Any:
    """gp.compile, vjp and grad of functions that return anything."""
    fn = d.value("fn")
    kind = d.choice([gp.compile, gp.compile, gp.grad, gp.value_and_grad, gp.vjp])
    if kind is gp.vjp:
        _, pull = gp.vjp(fn, d.array())
        return pull(d.array())
    return _call(d, kind)(*[d.array() for _ in range(d.choice([1, 1, 1, 2]))])


def _step_of(d: Draw, **options: Any) -> Any:
    model = nn.Linear(3, 2)
    loss = nn.CrossEntropyLoss()
    options.setdefault("backend", "numpy")
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    return gp.compile_step(lambda x, y: loss(model(x), y), optimizer, **options)


def step_options(d: Draw) -> Any:
    names = ("max_grad_norm", "max_grad_value", "keep_grads", "accumulate", "scheduler", "ema")
    names += ("loss_scale", "seed", "options", "backend", "device")
    options = {n: d.value(n) for n in names if d.random() < 0.25}
    step = _step_of(d, **options)
    return step(np.ones((4, 3), np.float32), np.zeros(4, np.int64))


def step_data(d: Draw) -> Any:
    """A step or a run with data, orders and sizes that may not fit."""
    step = _step_of(d)
    x = d.choice([np.ones((4, 3), np.float32), d.array((4, 3)), d.value("x")])
    y = d.choice([np.zeros(4, np.int64), d.array((4,), "int64"), d.value("y")])
    if d.random() < 0.4:
        return step(*d.choice([(x, y), (x, y), (x,), (), (x, y, y)]))
    names = ("batch_size", "epochs", "shuffle", "seed", "drop_last", "order")
    return step.run(x, y, **{n: d.value(n) for n in names if d.random() < 0.3})


def step_state(d: Draw) -> Any:
    step = _step_of(d)
    step(np.ones((4, 3), np.float32), np.zeros(4, np.int64))
    step.load_state_dict(_bent(d, step.state_dict()))
    return step.prepare(*[d.value("x") for _ in range(2)])


def population(d: Draw) -> Any:
    """Members, runs and changes that may not fit."""
    names = ["n", "seeds", "initial", "slots", "scheduler", "lr", "momentum", "weight_decay"]
    names.append("scheduler_every")
    model, loss = nn.Linear(3, 2), nn.CrossEntropyLoss()
    options = {"n": 2, **{n: d.value(n) for n in names if d.random() < 0.08}}
    if isinstance(options["n"], int):
        options["n"] = min(options["n"], 4)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    made = gp.compile_population(
        lambda x, y: loss(model(x), y), optimizer, model=model, backend="numpy", **options
    )
    known = ("batch_size", "rows", "orders", "drop_last", "shuffle")
    sizes = {"batch_size": 3, **{n: d.value(n) for n in known if d.random() < 0.15}}
    made.run(X, Y, **sizes)
    which = d.choice(["stop", "resume", "best", "hyper", "set_hyper", "copy", "state_dict"])
    which = d.choice([which, "load_state_dict", "predict", "ensemble", "load_full_state"])
    return _call(d, getattr(made, which))


def _trainer(d: Draw, **options: Any) -> Any:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    options.setdefault("backend", "numpy")
    return train.Trainer(
        model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1), **options
    )


X, Y = np.ones((6, 3), np.float32), np.array([0, 1, 0, 1, 0, 1])


def trainer(d: Draw) -> Any:
    names = ("device", "backend", "seed", "scheduler", "scheduler_every", "max_grad_norm", "ema")
    options = {n: d.value(n) for n in names if d.random() < 0.3}
    if d.random() < 0.4:
        made = train.Trainer(d.value("model"), d.anything(), d.optimizer(), **options)
    else:
        made = _trainer(d, **options)
    return made.fit(X, Y, verbose=False)


def fit(d: Draw) -> Any:
    """Training with data and options that may not fit."""
    made = _trainer(d)
    known = inspect.signature(made.fit).parameters
    options = {n: d.value(n) for n in known if n not in ("X", "y") and d.random() < 0.15}
    options["verbose"] = False
    if isinstance(options.get("epochs"), int):
        options["epochs"] = min(options["epochs"], 3)
    x = d.choice([X, X, d.array((6, 3)), d.value("X")])
    y = d.choice([Y, Y, d.array((6,)), d.value("y"), None])
    return made.fit(x, y, **options)


def evaluated(d: Draw) -> Any:
    made = _trainer(d)
    made.fit(X, Y, verbose=False)
    which = d.choice(["evaluate", "predict", "save", "load", "stop"])
    return _call(d, getattr(made, which))


def callbacks(d: Draw) -> Any:
    names = ["EarlyStopping", "ModelCheckpoint", "TerminateOnNaN", "LRMonitor", "CSVLogger"]
    made = _call(d, getattr(train, d.choice(names)))
    return _trainer(d).fit(X, Y, epochs=2, verbose=False, callbacks=d.choice([[made], made]))


def files(d: Draw) -> Any:
    """Models, tables and arrays from files that hold something else."""
    fn = d.choice([train.load_model, train.load_weights, train.save_model, data.read_csv])
    fn = d.choice([fn, fn, data.read_npz])
    return _call(d, fn)


def damaged(d: Draw) -> Any:
    """A model's file with some bytes changed, or cut off."""
    path = d.folder / "damaged"
    whole = bytearray((d.folder / d.choice(["good.safetensors", "run.ckpt"])).read_bytes())
    for _ in range(d.choice([0, 1, 3])):
        whole[d.randrange(min(len(whole), 700))] = d.randrange(256)
    path.write_bytes(bytes(whole[: d.choice([len(whole), len(whole) // 2, 8, 0])]))
    if d.random() < 0.5:
        return _trainer(d).load(path)
    return d.choice([train.load_model, lambda p: train.load_weights(p, nn.Linear(3, 2))])(path)


def sources(d: Draw) -> Any:
    which = d.choice(["train_test_split", "prefetch", "load_digits", "Standardizer"])
    if which == "Standardizer":
        made = data.Standardizer.fit(d.value("X"))
        made.inverse(made.transform(d.value("X")))
        return data.Standardizer.from_dict(_bent(d, made.to_dict()))
    if which == "prefetch":
        return list(_call(d, data.prefetch))
    return _call(d, getattr(data, which))


def finder(d: Draw) -> Any:
    return _call(d, train.LRFinder(_trainer(d)).find)


def numbers(d: Draw) -> Any:
    """Generators, loss scales, options, custom ops."""
    which = d.choice(
        [gp.manual_seed, gp.Generator, gp.LossScale, gp.Options, nn.Parameter, nn.Buffer]
    )
    return _call(d, which)


def custom(d: Draw) -> Any:
    made = _call(d, gp.custom_op)
    return made(*[d.array() for _ in range(2)]) if callable(made) else made


def initialised(d: Draw) -> Any:
    names = [n for n in dir(nn.init) if n.endswith("_") and not n.startswith("_")]
    return _call(d, getattr(nn.init, d.choice([*names, "calculate_gain"])))


def attributes(d: Draw) -> Any:
    """Modules whose parts are replaced."""
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    kind = d.choice(["weight", "append", "buffer", "parameter", "module", "apply", "value", "item"])
    if kind == "weight":
        model[0].weight = d.anything()
    elif kind == "append":
        model.append(d.anything())
    elif kind == "buffer":
        model.register_buffer(d.choice(["b", "a.b", "", 3]), d.anything())
    elif kind == "parameter":
        model.register_parameter(d.choice(["p", "a.b", "", 3]), d.anything())
    elif kind == "module":
        model.add_module(d.choice(["m", "a.b", "", 3]), d.anything())
    elif kind == "apply":
        model.get_submodule(d.choice(["0", "9", "", "0.weight", 3]))
    elif kind == "value":
        model[0].weight.value = d.anything()
    else:
        model[d.choice([0, 7, -1, -9, "0", slice(0, 1), None])]
    return model(np.ones((4, 3), np.float32))


def command(d: Draw) -> Any:
    """The command line, in this process."""
    files = [str(p) for p in sorted(d.folder.iterdir())]
    words = ["train", "predict", "show", "info", "digits", *files, "--target", "y", "--epochs", "1"]
    words += ["--hidden", "8", "--lr", "x", "--batch-size", "0", "--optimizer", "adamx", "--task"]
    words += [
        "regression",
        "--save",
        str(d.folder / "out"),
        "-o",
        "--loss",
        "mse",
        "--nope",
        "--test",
    ]
    start = d.choice(
        [
            ["train", d.choice(files), "--target", d.choice(["y", "x1", "nope"]), "--epochs", "1"],
            ["train", d.choice(files), "--epochs", "1"],
            ["predict", d.choice(files), d.choice(files)],
            ["show", d.choice(files)],
            [],
        ]
    )
    line = [*start, *[d.choice(words) for _ in range(d.choice([0, 1, 2, 3]))]]
    if not start and "digits" in line:
        line += ["--epochs", "1"]
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(line)
    except SystemExit as end:
        code = end.code
    text = err.getvalue()
    assert "Traceback" not in text, text
    assert isinstance(code, int), code
    assert code == 0 or text.strip(), f"code {code} without a word: {line}"


def write_files(folder: Path) -> None:
    """Files of all kinds for the calls that read some."""
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    train.save_model(folder / "good.safetensors", model)
    made = train.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1))
    made.fit(X, Y, verbose=False)
    made.save(folder / "run.ckpt")
    rows = "\n".join(f"{i},{i % 3},{'ab'[i % 2]}" for i in range(12))
    (folder / "good.csv").write_text(f"x1,x2,y\n{rows}\n")
    (folder / "ragged.csv").write_text("x1,x2,y\n1,2\n1,2,3,4\n")
    (folder / "missing.csv").write_text("x1,x2,y\n1,,a\n?,2,b\n3,4,\n")
    (folder / "header.csv").write_text("x1,x2,y\n")
    (folder / "twice.csv").write_text("y,y\n1,2\n3,4\n")
    (folder / "empty").write_bytes(b"")
    (folder / "bytes.csv").write_bytes(bytes(range(256)))
    (folder / "config.toml").write_text("[train\nlr=")
    np.savez(folder / "good.npz", X=X, y=Y)
    np.savez(folder / "odd.npz", X=np.array(["a"]), y=np.zeros((2, 2)))
    np.save(folder / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    (folder / "folder").mkdir()


def _of(module: Any) -> list[str]:
    return [n for n in module.__all__ if n not in LEFT_OUT]


TARGETS: list[tuple[str, Target, float]] = [
    *[(f"ops.{n}", _op(n), 1.0) for n in _of(ops)],
    *[(f"nn.{n}", _module(n), 1.0) for n in _of(nn)],
    *[(f"functional.{n}", _op(n, functional), 0.5) for n in _of(functional)],
    *[(f"optim.{n}", _optimizer(n), 1.5) for n in _of(optim) if n != "lr_scheduler"],
    *[(f"lr_scheduler.{n}", _schedule(n), 1.0) for n in _of(lr_scheduler)],
    ("gp.compile", compiled, 8.0),
    ("compile_step", step_options, 5.0),
    ("Step.run", step_data, 8.0),
    ("Step.load_state_dict", step_state, 2.0),
    ("population", population, 4.0),
    ("Trainer", trainer, 4.0),
    ("Trainer.fit", fit, 10.0),
    ("Trainer.evaluate", evaluated, 4.0),
    ("callbacks", callbacks, 4.0),
    ("files", files, 6.0),
    ("damaged files", damaged, 6.0),
    ("data", sources, 5.0),
    ("LRFinder", finder, 2.0),
    ("numbers", numbers, 3.0),
    ("custom_op", custom, 2.0),
    ("nn.init", initialised, 4.0),
    ("attributes", attributes, 6.0),
    ("command line", command, 10.0),
]
