"""A program that ranks run as processes: trains, and may kill one of them on the way.

Usage: rank_process.py FILE [--deterministic] [--shard] [--buckets] [--checkpoint FILE]
           [--kill RANK:STEP,...] [--signal NAME] [--epochs N] [--batch-size N] [--memory]
           [--raise RANK:STEP] [--press RANK:SECONDS] [--stall RANK]

Rank 0 writes the results to FILE (NPZ). The kills are done one a start: a file beside FILE counts
the starts. A rank that is lost to others makes them write what they were told beside FILE; of a
run that Ctrl-C ends (pressed for a rank, or for "all"), each rank writes where it stands. A rank
that stalls never comes back from its second epoch; Ctrl-C is pressed twice then.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
import zlib
from pathlib import Path

import numpy as np
from rank_work import X, Y, classifier

import gpubp as gp
from gpubp import nn
from gpubp.distributed import DataParallel
from gpubp.errors import LostPeerError
from gpubp.train import Callback, Trainer


class Kill(Callback):
    """Ends this process where it was asked for."""

    def __init__(self, step: int, name: str) -> None:
        self.step, self.signal = step, signal.Signals[name]

    def on_chunk_end(self, trainer, losses):
        if trainer.steps >= self.step:
            os.kill(os.getpid(), self.signal)


class Raise(Callback):
    """Fails where it was asked for."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_chunk_end(self, trainer, losses):
        if trainer.steps >= self.step:
            raise ValueError("out of luck")


class Press(Callback):
    """Presses Ctrl-C for this process some time after the first steps, as often as asked."""

    def __init__(self, seconds: float, times: int) -> None:
        self.seconds, self.times = seconds, times

    def on_epoch_begin(self, trainer, epoch):
        if epoch == 2 and self.times == 1:
            self._press()

    def on_epoch_end(self, trainer, epoch, record):
        if epoch == 2 and self.times == 2:  # the other rank is here too, and stays
            self._press()

    def _press(self) -> None:
        for i in range(1, self.times + 1):
            threading.Timer(i * self.seconds, os.kill, [os.getpid(), signal.SIGINT]).start()


class Stall(Callback):
    """Does not come back."""

    def on_epoch_end(self, trainer, epoch, record):
        while epoch == 2:
            time.sleep(1)


class Memory(Callback):
    """Writes what this process has in memory, a line for each thousand steps or so."""

    def __init__(self, file: Path) -> None:
        self.file, self.due = file, 1000

    def on_epoch_end(self, trainer, epoch, record):
        if trainer.steps >= self.due:
            self.due += 1000
            with self.file.open("a") as out:
                print(trainer.steps, resident(), file=out)


def resident() -> int:
    """Bytes of this process that are in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def start_number(folder: Path, rank: int) -> int:
    """How often this rank has been started before."""
    path = folder / f"starts-{rank}"
    number = len(path.read_text()) if path.exists() else 0
    path.write_text("x" * (number + 1))
    return number


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("--deterministic", action="store_true")
    parser.add_argument("--shard", action="store_true")
    parser.add_argument("--buckets", action="store_true")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--checkpoint")
    parser.add_argument("--kill", default="")
    parser.add_argument("--signal", default="SIGKILL")
    parser.add_argument("--raise", default="", dest="fail")
    parser.add_argument("--press", default="")
    parser.add_argument("--stall", default="")
    options = parser.parse_args()
    communicator = gp.distributed.init()
    rank, kills = communicator.rank, [k.split(":") for k in options.kill.split(",") if k]
    start = start_number(options.file.parent, rank)
    mine = [int(step) for who, step in kills[start : start + 1] if int(who) == rank]
    more: list[Callback] = []
    if options.memory:
        more.append(Memory(options.file.parent / f"memory-{rank}"))
    who, _, when = options.fail.partition(":")
    if who == str(rank):
        more.append(Raise(int(when)))
    who, _, when = options.press.partition(":")
    if who in (str(rank), "all"):
        more.append(Press(float(when), 2 if options.stall else 1))
    if options.stall == str(rank):
        more.append(Stall())
    dtype = "float32" if options.deterministic else "float64"
    model, optimizer = classifier(dtype=dtype)
    parallel = DataParallel(
        communicator, deterministic=options.deterministic, shard_optimizer=options.shard,
        bucket_cap_mb=1e-4 if options.buckets else None,
    )  # fmt: skip
    trainer = Trainer(
        model, nn.CrossEntropyLoss(), optimizer, communicator=parallel, max_grad_norm=0.5
    )
    resume = (
        options.checkpoint if options.checkpoint and Path(options.checkpoint).exists() else None
    )
    began = time.monotonic()
    try:
        trainer.fit(
            X, Y, epochs=options.epochs, batch_size=options.batch_size, verbose=False,
            validation_split=0.1,
            # The same ones at every start.
            callbacks=[Kill(next(iter(mine), sys.maxsize), options.signal), *more],
            checkpoint=options.checkpoint, save_every_steps=2, resume=resume,
        )  # fmt: skip
    except LostPeerError as error:
        took = time.monotonic() - began
        (options.file.parent / f"lost-{rank}-{start}").write_text(f"{took} {error}")
        sys.exit(7)
    except ValueError:
        time.sleep(5)  # caught by the program, which goes on without the others
        sys.exit(8)
    if options.press:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # pressed here when another's had ended all
        weights = zlib.crc32(b"".join(v.tobytes() for v in model.state_dict().values()))
        stands = f"{trainer.stop_reason} {trainer.epoch} {trainer.steps} {weights}"
        (options.file.parent / f"stands-{rank}").write_text(stands)
    if rank == 0:
        history = {name: np.array(values) for name, values in trainer.history.items()}
        np.savez(options.file, **history, **model.state_dict())
    communicator.close()


if __name__ == "__main__":
    main()
