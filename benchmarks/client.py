"""The client against the floor: a blocking read loop on the same `tmux -C` that parses nothing.

    python -m benchmarks.client [--tmux PROGRAM] [--rounds N] [--json]

Both sides run in turns in one process tree on one tmux server. What counts is the ratio; absolute
times depend on the machine and on what else it does.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import secrets
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import libtmux
import trio

import tmuxcc
from tmuxcc import Output

TICKER = """
import sys, time
gap, count = float(sys.argv[1]), int(sys.argv[2])
time.sleep(0.3)
for _ in range(count):
    sys.stdout.write("T%dT\\n" % time.monotonic_ns())
    sys.stdout.flush()
    time.sleep(gap)
print(sys.argv[3])
time.sleep(0.2)
"""

LINE = (
    "\x1b[32m2026-11-22T10:00:00\x1b[0m \x1b[1;34mINFO\x1b[0m request served"
    " path=\x1b[36m/index.html\x1b[0m status=200 bytes=51234 duration=12ms\n"
)

END = b"the-end-of-the-flood"


def ticker(gap: float, count: int) -> tuple[list[str], bytes]:
    """The program that writes `count` time stamps, and what it writes last."""
    last = secrets.token_hex(8)
    return [sys.executable, "-c", TICKER, str(gap), str(count), last], last.encode()


class Floor:
    """`tmux -C` read with os.read and nothing else."""

    def __init__(self, tmux: str, socket: str) -> None:
        self.process = subprocess.Popen(
            f"{tmux} -u -S {socket} -N -C attach-session -E -f ignore-size,pause-after=1".split(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.fd = self.process.stdout.fileno()
        self.read_until(b"%session-changed")

    def read_until(self, text: bytes) -> bytes:
        data = b""
        while text not in data:
            data += os.read(self.fd, 65536)
        return data

    def write(self, line: bytes) -> None:
        os.write(self.process.stdin.fileno(), line)

    def close(self) -> None:
        self.process.stdin.close()
        while os.read(self.fd, 65536):
            pass
        self.process.wait()
        self.process.stdout.close()


def stamps(data: bytes) -> list[int]:
    return [int(part) for part in data.split(b"T")[1::2]]


def new_window(tmux: str, socket: str, argv: list[str]) -> None:
    subprocess.run([tmux, "-S", socket, "new-window", "-d", "-t", "bench", *argv], check=True)


def cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


# Each measurement takes (tmux, socket) and gives a list of samples.


def floor_latency(tmux: str, socket: str, gap: float, count: int) -> list[float]:
    floor = Floor(tmux, socket)
    argv, last = ticker(gap, count)
    new_window(tmux, socket, argv)
    samples: list[float] = []
    data = b""
    while last not in data:
        data = os.read(floor.fd, 65536)
        now = time.monotonic_ns()
        # A line that is cut by the read is left out: the loop keeps nothing.
        samples += [(now - stamp) / 1e3 for stamp in stamps(data) if b"T%dT" % stamp in data]
    floor.close()
    return samples


def trio_latency(tmux: str, socket: str, gap: float, count: int) -> list[float]:
    """The floor under trio: wait_readable and os.read, and nothing parsed."""

    async def measure() -> list[float]:
        floor = Floor(tmux, socket)
        os.set_blocking(floor.fd, False)
        argv, last = ticker(gap, count)
        new_window(tmux, socket, argv)
        samples: list[float] = []
        data = b""
        while last not in data:
            await trio.lowlevel.wait_readable(floor.fd)
            data = os.read(floor.fd, 65536)
            now = time.monotonic_ns()
            samples += [(now - stamp) / 1e3 for stamp in stamps(data) if b"T%dT" % stamp in data]
        os.set_blocking(floor.fd, True)
        floor.close()
        return samples

    return trio.run(measure)


def polling_latency(tmux: str, socket: str, gap: float, count: int) -> list[float]:
    """libtmux, which asks for the screen every 100 ms."""
    server = libtmux.Server(socket_path=socket, tmux_bin=tmux)
    argv, _ = ticker(gap, count)
    pane = server.sessions[0].new_window(attach=False, window_shell=shlex.join(argv)).panes[0]
    seen: dict[int, float] = {}
    while len(seen) < count:
        text = "".join(pane.capture_pane())
        now = time.monotonic_ns()
        if not text and seen:
            break
        for stamp in stamps(text.encode()):
            seen.setdefault(stamp, (now - stamp) / 1e3)
        time.sleep(0.1)
    return list(seen.values())


def polling_commands(tmux: str, socket: str, count: int) -> list[float]:
    server = libtmux.Server(socket_path=socket, tmux_bin=tmux)
    samples = []
    for _ in range(count):
        start = time.perf_counter()
        server.cmd("display-message", "-p", "x")
        samples.append((time.perf_counter() - start) * 1e6)
    return samples


def client_latency(tmux: str, socket: str, gap: float, count: int, tap: bool) -> list[float]:
    async def measure() -> list[float]:
        samples: list[float] = []
        async with tmuxcc.open_client("bench", tmux=tmux, socket_path=socket) as client:
            done = trio.Event()

            def take(event: Output) -> None:
                now = time.monotonic_ns()
                samples.extend((now - stamp) / 1e3 for stamp in stamps(event.data))
                if len(samples) >= count:
                    done.set()

            argv, _ = ticker(gap, count)
            if tap:
                client.add_tap(take, Output)
                await client.command("new-window", "-d", *argv)
                with trio.move_on_after(count * gap + 5):
                    await done.wait()
            else:
                async with client.events(Output) as events:
                    await client.command("new-window", "-d", *argv)
                    with trio.move_on_after(count * gap + 5):
                        async for event in events:
                            take(event)
                            if done.is_set():
                                break
        return samples

    return trio.run(measure)


def floor_commands(tmux: str, socket: str, count: int) -> list[float]:
    floor = Floor(tmux, socket)
    samples = []
    for _ in range(count):
        start = time.perf_counter()
        floor.write(b"display-message -p x\n")
        floor.read_until(b"%end")
        samples.append((time.perf_counter() - start) * 1e6)
    floor.close()
    return samples


def client_commands(tmux: str, socket: str, count: int) -> list[float]:
    async def measure() -> list[float]:
        samples = []
        async with tmuxcc.open_client("bench", tmux=tmux, socket_path=socket) as client:
            for _ in range(count):
                start = time.perf_counter()
                await client.command("display-message", "-p", "x")
                samples.append((time.perf_counter() - start) * 1e6)
        return samples

    return trio.run(measure)


def floor_pipelined(tmux: str, socket: str, count: int) -> list[float]:
    floor = Floor(tmux, socket)
    line = b"display-message -p x\n"
    start = time.perf_counter()
    seen = sent = 0
    while seen < count:
        while sent < count and sent - seen < 1000:
            floor.write(line * 100)
            sent += 100
        seen += os.read(floor.fd, 65536).count(b"%end")
    elapsed = time.perf_counter() - start
    floor.close()
    return [count / elapsed]


def client_pipelined(tmux: str, socket: str, count: int) -> list[float]:
    async def measure() -> list[float]:
        async with tmuxcc.open_client("bench", tmux=tmux, socket_path=socket) as client:
            start = time.perf_counter()
            await client.batch([("display-message", "-p", "x")] * count)
            return [count / (time.perf_counter() - start)]

    return trio.run(measure)


def flood_argv(folder: Path, megabytes: int) -> tuple[list[str], int]:
    file = folder / "flood.txt"
    text = (LINE * (megabytes * 1_000_000 // len(LINE))).encode()
    file.write_bytes(text)
    # Each LF becomes CR LF on the way through the terminal.
    argv = ["sh", "-c", f"sleep 0.3; cat {file}; echo {END.decode()}; sleep 0.2"]
    return argv, len(text) + text.count(b"\n") + len(END) + 2


def floor_flood(tmux: str, socket: str, argv: list[str], _: int) -> tuple[float, float]:
    floor = Floor(tmux, socket)
    new_window(tmux, socket, argv)
    while b"output %" not in (data := os.read(floor.fd, 65536)):
        pass
    start, before = time.perf_counter(), cpu()
    tail = data
    while END not in tail:
        data = os.read(floor.fd, 65536)
        tail = tail[-len(END) :] + data
    elapsed, used = time.perf_counter() - start, cpu() - before
    floor.read_until(b"window-close")
    floor.close()
    return elapsed, used


def client_flood(tmux: str, socket: str, argv: list[str], size: int) -> tuple[float, float]:
    async def measure() -> tuple[float, float]:
        async with tmuxcc.open_client("bench", tmux=tmux, socket_path=socket) as client:
            made = await client.command("new-window", "-d", "-P", "-F", "#{pane_id}", *argv)
            pane = client.pane(made[0])
            received = 0
            start = before = 0.0
            async for item in pane.output(since=0):
                if not start:
                    start, before = time.perf_counter(), cpu()
                if isinstance(item, tmuxcc.Gap):
                    raise SystemExit(f"lost output: {item}")
                assert isinstance(item, tmuxcc.Chunk)
                received += len(item.data)
                if received >= size:
                    break
            elapsed, used = time.perf_counter() - start, cpu() - before
            assert received == size, (received, size)
            await pane.wait_exit()
            return elapsed, used

    return trio.run(measure)


def quantile(samples: list[float], part: float) -> float:
    return sorted(samples)[min(len(samples) - 1, int(len(samples) * part))]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--tmux", default=shutil.which("tmux"))
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--quick", action="store_true", help="a smoke test: tiny sizes")
    options.add_argument("--json", action="store_true")
    chosen = options.parse_args()
    tmux = chosen.tmux
    rounds = 1 if chosen.quick else chosen.rounds
    lines, commands, pipelined, megabytes = (
        (50, 50, 1000, 1) if chosen.quick else (400, 2000, 20000, 34)
    )
    results: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="tmuxcc-bench-") as name:
        folder = Path(name)
        socket = str(folder / "s")
        subprocess.run(
            f"{tmux} -u -S {socket} -f /dev/null new-session -d -s bench -x 200 -y 50"
            " sleep 100000".split(),
            check=True,
        )
        try:
            samples: dict[str, list[float]] = {}

            def add(key: str, values: list[float]) -> None:
                samples.setdefault(key, []).extend(values)

            flood, size = flood_argv(folder, megabytes)
            for _ in range(rounds):
                add("latency floor", floor_latency(tmux, socket, 0.002, lines))
                add("latency trio floor", trio_latency(tmux, socket, 0.002, lines))
                add("latency tap", client_latency(tmux, socket, 0.002, lines, True))
                add("latency events", client_latency(tmux, socket, 0.002, lines, False))
                add("latency libtmux", polling_latency(tmux, socket, 0.02, lines // 10))
                add("command libtmux", polling_commands(tmux, socket, commands // 50))
                add("command floor", floor_commands(tmux, socket, commands))
                add("command client", client_commands(tmux, socket, commands))
                add("pipelined floor", floor_pipelined(tmux, socket, pipelined))
                add("pipelined client", client_pipelined(tmux, socket, pipelined))
                for side, measure in (("floor", floor_flood), ("client", client_flood)):
                    seconds, used = measure(tmux, socket, flood, size)
                    add(f"flood {side} MB/s", [size / seconds / 1e6])
                    add(f"flood {side} cpu s", [used])
        finally:
            subprocess.run([tmux, "-S", socket, "kill-server"], check=False)
    for key, values in samples.items():
        results[key] = {"p50": statistics.median(values), "p99": quantile(values, 0.99)}

    def ratio(side: str, floor: str, key: str = "p50") -> float:
        return results[side][key] / results[floor][key]

    ratios = {
        "event latency p50 / floor (<= 1.5)": ratio("latency events", "latency floor"),
        "event latency p99 / floor (<= 2)": ratio("latency events", "latency floor", "p99"),
        "tap latency p50 / floor (<= 1.2)": ratio("latency tap", "latency floor"),
        "command p50 / floor (<= 5)": ratio("command client", "command floor"),
        "pipelined client / floor (>= 0.43)": ratio("pipelined client", "pipelined floor"),
        "flood client / floor (>= 0.97)": ratio("flood client MB/s", "flood floor MB/s"),
    }
    if chosen.json:
        print(
            json.dumps({"machine": machine(tmux), "results": results, "ratios": ratios}, indent=1)
        )
        return
    for key, row in results.items():
        print(f"{key:22} p50 {row['p50']:10.2f}   p99 {row['p99']:10.2f}")
    print()
    for key, value in ratios.items():
        print(f"{key:40} {value:6.2f}")


def machine(tmux: str) -> dict[str, str]:
    version = subprocess.run([tmux, "-V"], capture_output=True, text=True, check=True)
    return {
        "kernel": platform.release(),
        "python": platform.python_version(),
        "trio": trio.__version__,
        "tmux": version.stdout.strip(),
        "cores": str(os.cpu_count()),
    }


if __name__ == "__main__":
    main()
