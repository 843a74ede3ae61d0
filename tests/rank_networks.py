"""Ranks on a slow network: each in a network namespace of its own, with packets that take a while.

Usage, as root on Linux: python tests/rank_networks.py [--ranks 3] [--delay 20] [--rate MBIT]
           [--cut RANK:SECONDS] [--costs [FILE]]

Each namespace has a TUN device, and this process carries their packets, each after `--delay` ms
(in both directions; the kernel needs no netem for that). The ranks train over gloo, and what they
find is compared with one rank. With `--cut` a rank's packets are dropped after so many seconds:
all ranks must then end with LostPeerError in time. With `--costs` steps are timed beside what the
model of costs predicts (rank_costs.py). Ends with 0 if all is as it should be.
"""

from __future__ import annotations

import argparse
import fcntl
import heapq
import json
import os
import select
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

PROGRAM = Path(__file__).parent / "rank_process.py"
COSTS = Path(__file__).parent / "rank_costs.py"
PACKET = 9000  # bytes at most, so that Python carries few
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


class Network:
    """Namespaces, and the thread that carries packets between them.

    Args:
        ranks: a namespace each.
        delay: seconds of each packet.
        rate: bytes a second that a rank sends at most, and gets at most; 0 for any.
    """

    def __init__(self, ranks: int, delay: float, rate: float = 0.0) -> None:
        self.names = [f"gpubp-{os.getpid()}-{i}" for i in range(ranks)]
        self.delay, self.rate, self.gone = delay, rate, -1
        self._free: dict[tuple[str, int], float] = {}  # when a rank's link, out or in, is free
        self.carried = self.dropped = 0
        self._devices: list[int] = []
        self._open = True

    def __enter__(self) -> Network:
        for i, name in enumerate(self.names):
            device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            label = f"gt{os.getpid() % 100000}{i}"
            flags = IFF_TUN | IFF_NO_PI
            fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH", label.encode(), flags))
            self._devices.append(device)
            ip("netns", "add", name)
            ip("link", "set", label, "netns", name)
            ip("-n", name, "link", "set", label, "name", "rank0", "mtu", str(PACKET))
            ip("-n", name, "addr", "add", f"10.97.0.{i + 1}/24", "dev", "rank0")
            ip("-n", name, "link", "set", "rank0", "up")
            ip("-n", name, "link", "set", "lo", "up")
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._open = False
        self._thread.join()
        for device, name in zip(self._devices, self.names):
            os.close(device)
            subprocess.run(["ip", "netns", "del", name], check=False)

    def _arrival(self, source: int, target: int, size: int) -> float:
        """When a packet that comes now is there: both links take their time for it."""
        at, takes = time.monotonic(), size / self.rate if self.rate else 0.0
        sent = self._free["out", source] = max(at, self._free.get(("out", source), 0.0)) + takes
        there = max(sent + self.delay, self._free.get(("in", target), 0.0) + takes)
        self._free["in", target] = there
        return there

    def _carry(self) -> None:
        waiting: list[tuple[float, int, int, bytes]] = []
        while self._open:
            wait = min(0.05, max(0.0, waiting[0][0] - time.monotonic())) if waiting else 0.05
            ready, _, _ = select.select(self._devices, [], [], wait)
            for device in ready:
                packet = os.read(device, 1 << 16)
                source, target = self._devices.index(device), packet[19] - 1
                if packet[0] >> 4 != 4 or not 0 <= target < len(self.names):
                    continue  # not IPv4, or to all
                if self.gone in (source, target):
                    self.dropped += 1
                    continue
                self.carried += 1
                entry = self._arrival(source, target, len(packet)), self.carried, target, packet
                heapq.heappush(waiting, entry)
            while waiting and waiting[0][0] <= time.monotonic():
                _, _, target, packet = heapq.heappop(waiting)
                os.write(self._devices[target], packet)


def started(
    network: Network,
    rank: int,
    folder: Path,
    timeout: float,
    *arguments: str,
    program: Path = PROGRAM,
) -> subprocess.Popen[bytes]:
    """A rank, in its namespace."""
    environment = {
        **os.environ, "GPUBP_RANK": str(rank), "GPUBP_WORLD_SIZE": str(len(network.names)),
        "GPUBP_ADDRESS": "10.97.0.1:29517", "GPUBP_DISTRIBUTED_BACKEND": "gloo",
        "GPUBP_DISTRIBUTED_TIMEOUT": str(timeout), "GLOO_SOCKET_IFNAME": "rank0",
        "GPUBP_NUM_THREADS": "1", "GPUBP_SHARED_MEMORY": "0",
    }  # fmt: skip
    command = [sys.executable, str(program), str(folder / "found.npz"), *arguments]
    inside = ["ip", "netns", "exec", network.names[rank], *command]
    return subprocess.Popen(inside, env=environment)


def costs(options: argparse.Namespace) -> int:
    """Time steps of two to so many ranks, and print them beside the model."""
    found = []
    for ranks in range(2, options.ranks + 1):
        with tempfile.TemporaryDirectory() as made:
            with Network(ranks, options.delay / 1e3, options.rate * 125e3) as network:
                how = ["--width", str(options.width), "--rounds", str(options.rounds)]
                started_ranks = [
                    started(network, r, Path(made), options.timeout, *how, program=COSTS)
                    for r in range(ranks)
                ]
                codes = [rank.wait() for rank in started_ranks]
            if any(codes):
                print(f"{ranks} ranks ended with {codes}")
                return 1
            found.append(json.loads((Path(made) / "found.npz").read_text()))
        for way, times in found[-1]["ways"].items():
            told, took = (1e3 * times[k] for k in ("predicted", "measured"))
            error = f"{100 * (told / took - 1):+.0f} %"
            line = f"{ranks} ranks, {way:10s}: {took:8.1f} ms, predicted {told:8.1f} ms ({error})"
            print(line, flush=True)
    if options.costs != "-":
        Path(options.costs).write_text(json.dumps(found, indent=1))
    return 0


def one_rank(folder: Path, *arguments: str) -> dict[str, np.ndarray]:
    """What one process finds."""
    folder.mkdir()
    command = [sys.executable, str(PROGRAM), str(folder / "found.npz"), *arguments]
    subprocess.run(command, check=True)
    with np.load(folder / "found.npz") as found:
        return dict(found)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ranks", type=int, default=3)
    parser.add_argument("--delay", type=float, default=20.0, help="of a packet, in ms (20)")
    parser.add_argument("--cut", default="", help="RANK:SECONDS")
    parser.add_argument("--timeout", type=float, default=20.0, help="of ranks, in seconds (20)")
    parser.add_argument("--shard", action="store_true")
    parser.add_argument("--buckets", action="store_true")
    parser.add_argument("--rate", type=float, default=0.0, help="of a link, in Mbit/s (any)")
    parser.add_argument("--costs", nargs="?", const="-", help="time steps; JSON goes to a file")
    parser.add_argument("--width", type=int, default=256, help="of the layers timed (256)")
    parser.add_argument("--rounds", type=int, default=5, help="of which the best counts (5)")
    options = parser.parse_args()
    if options.costs:
        return costs(options)
    more = [f"--{name}" for name in ("shard", "buckets") if getattr(options, name)]
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        expected = one_rank(folder / "one", *more)
        (folder / "all").mkdir()
        with Network(options.ranks, options.delay / 1e3, options.rate * 125e3) as network:
            ranks = [
                started(network, r, folder / "all", options.timeout, *more)
                for r in range(options.ranks)
            ]
            if options.cut:
                rank, seconds = options.cut.split(":")
                while network.carried < 50:  # they have met, and train
                    time.sleep(0.01)
                time.sleep(float(seconds))
                network.gone = int(rank)
            codes = [rank.wait() for rank in ranks]
        print(f"{network.carried} packets carried, {network.dropped} dropped; ended with {codes}")
        if options.cut:
            lost = [float(p.read_text().split()[0]) for p in (folder / "all").glob("lost-*")]
            print(
                f"lost peers were told after at most {max(lost, default=np.nan):.1f} s of training"
            )
            late = max(lost, default=np.inf) > float(seconds) + 2 * options.timeout
            return int(codes != [7] * options.ranks or len(lost) != options.ranks or late)
        with np.load(folder / "all" / "found.npz") as found:
            for name, value in expected.items():
                np.testing.assert_allclose(found[name], value, rtol=1e-12, atol=1e-12, err_msg=name)
        print(f"{options.ranks} ranks at {options.delay:g} ms a packet find what one finds")
        return 0 if not any(codes) else 1


if __name__ == "__main__":
    sys.exit(main())
