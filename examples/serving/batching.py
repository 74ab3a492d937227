"""Single requests gathered into batches, with a bound on the wait and on the queue."""

import asyncio
import collections
import contextlib
import math
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np


class Overloaded(Exception):
    """The queue is full. `retry_after` is in whole seconds."""

    def __init__(self, retry_after: int):
        super().__init__(f"try again in {retry_after} s")
        self.retry_after = retry_after


@dataclass(eq=False)
class Job:
    image: np.ndarray  # (28, 28), uint8
    arrived: float  # seconds of the event loop's clock, like the deadline
    deadline: float
    answer: asyncio.Future  # of (Model, probabilities (K,), images in the batch)


class Batcher:
    """Gathers single images into batches. One batch runs at a time, in a thread."""

    def __init__(
        self,
        run: Callable,
        max_batch: int,
        max_delay: float,
        limit: int,
        on_batch: Callable = lambda model, images, seconds: None,
    ):
        """`run(images (B, 28, 28))` returns (model, probabilities (B, K)). `max_delay` is in
        seconds. At most `limit` images wait or are on their way into the queue."""
        self.run, self.on_batch = run, on_batch
        self.max_batch, self.max_delay, self.limit = max_batch, max_delay, limit
        self.queue: collections.deque[Job] = collections.deque()
        self.coming = 0  # images that have a place, and are still read or decoded
        self.arrived, self.full = asyncio.Event(), asyncio.Event()
        self.seconds_per_image = 0.0  # a running mean
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="inference")

    @contextlib.contextmanager
    def place(self):
        """Hold a place in the queue while an image is read. Raises Overloaded if there is none."""
        if len(self.queue) + self.coming >= self.limit:
            wait = math.ceil(self.limit * self.seconds_per_image)
            # Spread, or all that were refused now come back at the same moment.
            raise Overloaded(max(wait, 1) + random.randint(0, 2))
        self.coming += 1
        try:
            yield
        finally:
            self.coming -= 1

    def submit(self, image: np.ndarray, deadline: float) -> Job:
        """Queue one image. The job's `answer` is a future."""
        loop = asyncio.get_running_loop()
        job = Job(image, loop.time(), deadline, loop.create_future())
        self.queue.append(job)
        self.arrived.set()
        if len(self.queue) >= self.max_batch:
            self.full.set()
        return job

    def forget(self, job: Job):
        """Take a job out whose client has gone or has waited too long."""
        job.answer.cancel()
        with contextlib.suppress(ValueError):  # its batch is running already
            self.queue.remove(job)

    def hurry(self):
        """From now on wait for no company: the service is about to end."""
        self.max_delay = 0
        self.full.set()

    async def next_batch(self) -> list[Job]:
        """Wait for an image, then until the batch is full or its first image has waited enough."""
        while not self.queue:
            self.arrived.clear()
            await self.arrived.wait()
        patience = self.queue[0].arrived + self.max_delay - asyncio.get_running_loop().time()
        if len(self.queue) < self.max_batch and patience > 0:
            self.full.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.full.wait(), patience)
        return [self.queue.popleft() for _ in range(min(len(self.queue), self.max_batch))]

    async def work(self):
        """Run batch after batch, for ever. While one runs, the next one gathers in the queue."""
        loop = asyncio.get_running_loop()
        while True:
            jobs = await self.next_batch()
            jobs = [job for job in jobs if job.deadline > loop.time()]  # too late: not worth it
            if not jobs:
                continue
            began = loop.time()
            try:
                images = np.stack([job.image for job in jobs])  # (B, 28, 28)
                model, rows = await loop.run_in_executor(self.thread, self.run, images)
                if len(rows) != len(jobs):
                    raise ValueError(f"{len(rows)} answers for {len(jobs)} images")
            except Exception as error:  # the batch is lost, the service is not
                for job in jobs:
                    if not job.answer.done():
                        job.answer.set_exception(error)
                continue
            seconds = loop.time() - began
            self.seconds_per_image += 0.1 * (seconds / len(jobs) - self.seconds_per_image)
            self.on_batch(model, len(jobs), seconds)
            for job, row in zip(jobs, rows, strict=True):
                if not job.answer.done():
                    job.answer.set_result((model, row, len(jobs)))
