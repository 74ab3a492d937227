"""A load generator for service.py, and a way to run the service for as long as it is needed.

    python load.py http://127.0.0.1:8000 --rate 200 --seconds 5

sends 200 requests a second, at random moments (a Poisson process), whether or not the earlier ones
have been answered: an open loop. A generator that waits for an answer before it sends the next
request stops sending just when the service is slow, and so leaves out the worst latencies. That
mistake is called coordinated omission. Latency counts from the moment at which a request was due.

    python load.py http://127.0.0.1:8000 --clients 16 --seconds 5

is a closed loop, in which each client waits. It finds the capacity, and no latency worth knowing.
"""

import argparse
import asyncio
import contextlib
import gc
import json
import os
import selectors
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

MOST_REQUESTS = 100_000  # in one run: a load test that cannot get out of hand
LOST = 0  # the status of a request without an answer
# For this machine's own address: not through a proxy that the environment names.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


# --- the load -----------------------------------------------------------------------------------


class Connection:
    """One kept-alive connection. A general HTTP client costs more than the service that it asks."""

    def __init__(self, host: str, port: int):
        self.host, self.port = host, port
        self.reader = self.writer = None

    async def ask(self, body: bytes) -> tuple[int, bytes]:
        """Status and body of the answer to POST /predict. Raises OSError or EOFError."""
        if self.writer is None or self.reader.at_eof() or self.reader.exception():
            self.close()
            self.reader, self.writer = await asyncio.open_connection(self.host, self.port)
        head = (
            f"POST /predict HTTP/1.1\r\nHost: {self.host}\r\nContent-Length: {len(body)}\r\n"
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        self.writer.write(head.encode() + body)
        answer = (await self.reader.readuntil(b"\r\n\r\n")).lower()
        _, _, length = answer.partition(b"content-length:")
        content = await self.reader.readexactly(int(length.partition(b"\r\n")[0]))
        if b"connection: close" in answer:
            self.close()
        return int(answer.split(b" ", 2)[1]), content

    def close(self):
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None


class Load:
    """Sends requests and keeps, for each, when it was due, sent and answered, and how."""

    def __init__(self, url: str, images: np.ndarray, timeout: float, connections: int):
        """`images` (N, 28, 28), uint8, are sent in turn. `timeout` is in seconds."""
        self.host, self.port = urlsplit(url).hostname, urlsplit(url).port
        self.bodies = [image.tobytes() for image in images]
        self.timeout = timeout
        self.idle = [Connection(self.host, self.port) for _ in range(connections)]
        self.rows: list[tuple] = []  # due, sent, answered, status, version

    async def one(self, due: float):
        """One request on an idle connection. With none left, the request counts as lost."""
        sent, status, version = time.perf_counter(), LOST, 0
        connection = self.idle.pop() if self.idle else None
        if connection is not None:
            try:
                async with asyncio.timeout(self.timeout):
                    status, content = await connection.ask(
                        self.bodies[len(self.rows) % len(self.bodies)]
                    )
                if status == 200:
                    version = json.loads(content)["version"]
            except Exception:  # whatever it was, the request has no answer
                connection.close()
            self.idle.append(connection)
        self.rows.append((due, sent, time.perf_counter(), status, version))

    async def open_loop(self, rate: float, seconds: float, seed: int):
        """Requests at `rate` a second on average, with exponential times between them."""
        gaps = np.random.default_rng(seed).exponential(1 / rate, size=int(2 * rate * seconds) + 50)
        moments = np.cumsum(gaps)
        start, tasks = time.perf_counter(), set()
        for moment in moments[moments < seconds][:MOST_REQUESTS]:
            await asyncio.sleep(max(start + moment - time.perf_counter(), 0))
            task = asyncio.create_task(self.one(start + moment))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)

    async def closed_loop(self, clients: int, seconds: float):
        """`clients` that each wait for an answer and then ask again."""
        stop = time.perf_counter() + seconds

        async def client():
            while (now := time.perf_counter()) < stop and len(self.rows) < MOST_REQUESTS:
                await self.one(now)

        await asyncio.gather(*(client() for _ in range(clients)))

    def close(self):
        for connection in self.idle:
            connection.close()

    def result(self) -> dict[str, np.ndarray]:
        """The columns of `rows`, in the order in which the requests were due."""
        table = np.array(sorted(self.rows), dtype=float).reshape(-1, 5)
        columns = dict(zip(("due", "sent", "answered", "status", "version"), table.T, strict=True))
        return columns | {name: columns[name].astype(int) for name in ("status", "version")}


def generate(
    url: str,
    images: np.ndarray,
    seconds: float,
    rate: float = 0,
    clients: int = 0,
    seed: int = 0,
    timeout: float = 10,
    connections: int = 400,
    warm_up: float = 0.3,
) -> dict[str, np.ndarray]:
    """Run an open loop at `rate` or a closed one of `clients`; the columns of `Load.result`.

    A closed loop of `warm_up` seconds goes before it and is not counted. Python's collection of
    garbage is off meanwhile: it would look like latency of the service.
    """

    async def run():
        load = Load(url, images, timeout, max(connections, clients))
        await load.closed_loop(min(8, connections), warm_up)
        load.rows.clear()
        if clients:
            await load.closed_loop(clients, seconds)
        else:
            await load.open_loop(rate, seconds, seed)
        load.close()
        return load.result()

    # The default selector on Linux rounds waits up to whole milliseconds, which is too coarse here.
    def loop():
        return asyncio.SelectorEventLoop(selectors.SelectSelector())

    gc.disable()
    try:
        with asyncio.Runner(loop_factory=loop) as runner:
            return runner.run(run())
    finally:
        gc.enable()


def summary(columns: dict[str, np.ndarray]) -> dict:
    """Rates a second, and percentiles of the latency of answers with status 200, in ms."""
    good = columns["status"] == 200
    if not len(good):
        raise ValueError("no request was sent: give the run more seconds, or a higher rate")
    span = columns["due"].max() - columns["due"].min() if len(good) > 1 else float("nan")
    latency = 1000 * (columns["answered"] - columns["due"])[good]
    late = 1000 * (columns["sent"] - columns["due"])
    percentiles = np.percentile(latency, [50, 95, 99]) if good.any() else [float("nan")] * 3
    status, count = np.unique(columns["status"], return_counts=True)
    return {
        "offered": len(good) / span,
        # Until the last answer: a closed loop ends with a request of every client in the service,
        # and to count these without their time would make the service look faster than it is.
        "answered": good.sum() / (columns["answered"][good].max() - columns["due"].min())
        if good.any()
        else 0.0,
        **dict(zip(("p50", "p95", "p99"), map(float, percentiles), strict=True)),
        "generator_late_p99": float(np.percentile(late, 99)),
        "statuses": dict(zip(map(int, status), map(int, count), strict=True)),
    }


# --- the service as a process -------------------------------------------------------------------


@contextlib.contextmanager
def running(models: Path, log: Path, patience: float = 60, **settings):
    """Start service.py on a free port, give (url, process), and stop it, whatever happens.

    `settings` are those of service.py, in lower case: max_batch=32. Its output goes to the file
    `log`: a pipe that nobody reads fills up, and then the service waits for ever. Raises
    RuntimeError with the end of the log if the service ends, or is not ready after `patience`
    seconds.
    """
    settings = {"models": models, "port": 0, "drain_seconds": 0} | settings
    environment = {f"SERVING_{name.upper()}": str(value) for name, value in settings.items()}
    command = [sys.executable, str(Path(__file__).with_name("service.py"))]
    with open(log, "wb") as output:
        process = subprocess.Popen(
            command, env=os.environ | environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield _wait_until_ready(process, log, patience), process
    finally:
        process.terminate()
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(process, log: Path, patience: float) -> str:
    give_up = time.monotonic() + patience
    while process.poll() is None and time.monotonic() < give_up:
        for line in log.read_text().splitlines():
            with contextlib.suppress(ValueError, OSError):  # HTTPError is an OSError too
                if (event := json.loads(line))["event"] == "listening":
                    url = f"http://127.0.0.1:{event['port']}"
                    DIRECT.open(f"{url}/ready", timeout=5).close()
                    return url
        time.sleep(0.02)
    raise RuntimeError(f"the service did not start:\n{log.read_text()[-2000:]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url", help="such as http://127.0.0.1:8000")
    parser.add_argument("--rate", type=float, default=0, help="requests a second: an open loop")
    parser.add_argument("--clients", type=int, default=0, help="a closed loop with so many")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=Path, help="a .npy file, uint8 (N, 28, 28)")
    parser.add_argument("--connections", type=int, default=400, help="at most so many at once")
    parser.add_argument("--save", type=Path, help="keep every request in this .npz file")
    options = parser.parse_args()
    if (options.rate > 0) == (options.clients > 0) or options.seconds > 600:
        parser.error("give either --rate or --clients, and at most 600 seconds")
    if max(options.connections, options.clients) > 1000:
        parser.error("at most 1000 connections")
    if options.images:
        images = np.load(options.images, allow_pickle=False)
    else:
        images = np.random.default_rng(0).integers(0, 256, (64, 28, 28), np.uint8)
    columns = generate(
        options.url,
        images,
        options.seconds,
        options.rate,
        options.clients,
        options.seed,
        connections=options.connections,
    )
    if options.save:
        np.savez(options.save, **columns)
    print(json.dumps(summary(columns)))


if __name__ == "__main__":
    main()
