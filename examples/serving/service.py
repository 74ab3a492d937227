"""An image classifier as a web service: batching, back-pressure, hot swap, graceful shutdown.

    SERVING_MODELS=models/clothes python service.py

One process serves one model, in one of its versions at a time. README.md lists the settings and
the endpoints. The request bodies are pictures that people sent: they are never logged or stored.
"""

import asyncio
import contextlib
import hmac
import io
import json
import logging
import math
import os
import re
import signal
import socket
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import uvicorn
from batching import Batcher, Overloaded
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, Response
from models import SIDE, Model, ModelError, Models
from PIL import Image, ImageOps
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect

log = logging.getLogger("serving")


@dataclass(frozen=True)
class Settings:
    """Each comes from the environment: `max_batch` from SERVING_MAX_BATCH."""

    models: Path = Path("models/clothes")  # a folder with one folder per version: 1, 2, ...
    version: int = 0  # the version to start with; 0 is the highest
    host: str = "127.0.0.1"
    port: int = 8000  # 0: any free one; the log says which
    threads: int = 1  # of ONNX Runtime; not more than the processor cores that we may use
    max_batch: int = 32  # images
    max_delay_ms: float = 2.0  # how long the first image of a batch waits for company
    queue_limit: int = 128  # images that may wait or be on their way; one more: 503
    deadline_ms: float = 1000.0  # from the first byte to the answer; then 408 or 504
    max_bytes: int = 1_000_000  # of a request's body
    max_pixels: int = 2_000_000  # of a picture, before it is decoded
    drain_seconds: float = 5.0  # from SIGTERM until the socket closes; answered normally
    admin_token: str = ""  # for activate and rollback; without one they are switched off

    def __post_init__(self):
        for name in ("threads", "max_batch", "queue_limit", "deadline_ms", "max_bytes"):
            if not getattr(self, name) > 0:
                raise ValueError(f"SERVING_{name.upper()} must be over 0: {getattr(self, name)}")

    @classmethod
    def from_environment(cls, environment=os.environ) -> "Settings":
        """Raises ValueError for a value of the wrong type or out of range."""
        values = {}
        for field in fields(cls):
            name = f"SERVING_{field.name.upper()}"
            if name in environment:
                try:
                    values[field.name] = field.type(environment[name])
                except ValueError as error:
                    raise ValueError(f"{name}: {error}") from error
        return cls(**values)


# --- what comes in ------------------------------------------------------------------------------


async def read_body(request: Request, limit: int) -> bytes:
    """The body; one byte over the limit and reading stops, whatever Content-Length had said."""
    too_large = HTTPException(413, f"the body has more than {limit:,} bytes")
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > limit:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise too_large
    return bytes(body)


async def discard_body(request: Request, limit: int, seconds: float = 0.5):
    """Read on for a while, and keep nothing: a connection that is closed with a part of the
    request unread is reset, and then the client may not see why it was refused."""
    with contextlib.suppress(TimeoutError, ClientDisconnect):
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                limit -= len(chunk)
                if limit < 0:
                    return


def decode(body: bytes, content_type: str, max_pixels: int) -> np.ndarray:
    """The image (28, 28), uint8, of raw bytes or of a PNG or JPEG. Raises HTTPException."""
    if content_type == "application/octet-stream":
        if len(body) != SIDE * SIDE:
            raise HTTPException(422, f"{SIDE * SIDE} bytes are needed, and these are {len(body)}")
        return np.frombuffer(body, np.uint8).reshape(SIDE, SIDE)
    kinds = {"image/png": "PNG", "image/jpeg": "JPEG"}
    if content_type not in kinds:
        raise HTTPException(415, f"send {', '.join(kinds)} or application/octet-stream")
    try:
        # Opening reads the header only. Nothing is decompressed until the size is known.
        with Image.open(io.BytesIO(body), formats=[kinds[content_type]]) as picture:
            if picture.width * picture.height > max_pixels:
                raise HTTPException(413, f"the picture has more than {max_pixels:,} pixels")
            if picture.mode not in ("1", "L", "LA", "P", "RGB", "RGBA"):
                raise HTTPException(415, f"pictures of the mode {picture.mode} are not supported")
            upright = ImageOps.exif_transpose(picture).convert("RGBA")
            black = Image.new("RGBA", upright.size, "black")
            grey = Image.alpha_composite(black, upright).convert("L")
            return np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BOX))
    except HTTPException:
        raise
    except Image.DecompressionBombError as error:
        raise HTTPException(413, f"the picture has more than {max_pixels:,} pixels") from error
    except Exception as error:  # decoders raise many kinds: struct.error, IndexError, ...
        raise HTTPException(422, "the picture cannot be decoded") from error


# --- the service --------------------------------------------------------------------------------


class Metrics:
    """What Prometheus reads. Labels take few values: a version, a path that exists, a status."""

    def __init__(self):
        self.registry = registry = CollectorRegistry()
        self.requests = Counter("requests", "Requests", ["path", "status"], registry=registry)
        buckets = [0.001 * 2**i for i in range(12)]
        self.seconds = Histogram(
            "request_seconds", "To the answer of /predict", buckets=buckets, registry=registry
        )
        self.in_flight = Gauge("in_flight", "Requests to /predict in work", registry=registry)
        self.queue = Gauge("queue_length", "Images that wait", registry=registry)
        self.batch = Histogram(
            "batch_images",
            "Images in a batch",
            registry=registry,
            buckets=[1, 2, 4, 8, 16, 32, 64, 128],
        )
        self.inference = Histogram(
            "inference_seconds", "Of one batch", buckets=buckets, registry=registry
        )
        self.predictions = Counter("predictions", "Images computed", ["version"], registry=registry)
        self.version = Gauge("active_version", "The version that answers", registry=registry)


class Service:
    """The application, its models and its batcher; as an ASGI application it observes the rest."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self.metrics = Metrics()
        self.models = Models(settings.models, settings.threads, settings.max_batch)
        self.batcher = Batcher(
            self.run,
            max_batch=settings.max_batch,
            max_delay=settings.max_delay_ms / 1000,
            limit=settings.queue_limit,
            on_batch=self.count_batch,
        )
        # A picture of max_pixels takes tens of megabytes while it is decoded: two at a time.
        self.decoders = ThreadPoolExecutor(2, thread_name_prefix="decode")
        self.metrics.queue.set_function(lambda: len(self.batcher.queue))
        self.metrics.version.set_function(lambda: getattr(self.models.active, "version", 0))
        self.draining = False
        self.worker: asyncio.Task | None = None
        self.app = FastAPI(lifespan=self.lifespan, docs_url=None, redoc_url=None, openapi_url=None)
        self.paths = set()
        for method, path, endpoint in (
            ("POST", "/predict", self.predict),
            ("GET", "/live", self.live),
            ("GET", "/ready", self.ready),
            ("GET", "/metrics", self.show_metrics),
            ("GET", "/models", self.show_models),
            ("POST", "/models/rollback", self.rollback),
            ("POST", "/models/{version}/activate", self.activate),
        ):
            self.app.add_api_route(path, endpoint, methods=[method], response_model=None)
            self.paths.add(path)

    def run(self, images):
        model = self.models.active  # read once: a batch has one version from its start to its end
        return model, model(images)

    def count_batch(self, model: Model, size: int, seconds: float):
        self.metrics.batch.observe(size)
        self.metrics.inference.observe(seconds)
        self.metrics.predictions.labels(model.version).inc(size)

    @contextlib.asynccontextmanager
    async def lifespan(self, app):
        versions = self.models.versions()
        await self.models.activate(self.settings.version or max(versions, default=0))
        self.worker = asyncio.create_task(self.batcher.work())
        yield
        self.worker.cancel()  # uvicorn has waited for every request
        self.batcher.thread.shutdown()
        self.decoders.shutdown(cancel_futures=True)

    async def predict(self, request: Request):
        loop, note = asyncio.get_running_loop(), request.scope["note"]
        deadline = loop.time() + self.settings.deadline_ms / 1000
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        try:
            with self.batcher.place():  # before any work is put into it
                async with asyncio.timeout_at(deadline):
                    body = await read_body(request, self.settings.max_bytes)
                    note["bytes"] = len(body)
                    image = await self.decode(body, kind)
                job = self.batcher.submit(image, deadline)
        except TimeoutError as error:
            raise HTTPException(408, "the request took too long to arrive") from error
        except ClientDisconnect as error:
            raise HTTPException(499, "the client left") from error
        except HTTPException as error:
            if error.status_code == 413 and "bytes" not in note:
                await discard_body(request, 10 * self.settings.max_bytes)
            raise
        except Overloaded as error:
            await discard_body(request, self.settings.max_bytes)
            seconds = str(error.retry_after)
            raise HTTPException(503, "too many requests wait", {"Retry-After": seconds}) from error
        gone = asyncio.ensure_future(request.receive())  # comes back when the client hangs up
        try:
            await asyncio.wait(
                (job.answer, gone),
                timeout=deadline - loop.time(),
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            left = gone.done()
            gone.cancel()
            if not job.answer.done():
                self.batcher.forget(job)
        if job.answer.cancelled():
            raise HTTPException(499 if left else 504, "no answer before the deadline")
        model, row, size = job.answer.result()
        note |= {"version": model.version, "batch": size}
        probabilities = dict(zip(model.classes, row.tolist(), strict=True))
        best = model.classes[int(row.argmax())]
        return JSONResponse(
            {"class": best, "probabilities": probabilities, "version": model.version}
        )

    async def decode(self, body: bytes, kind: str) -> np.ndarray:
        if kind == "application/octet-stream":
            return decode(body, kind, self.settings.max_pixels)
        # A large picture takes milliseconds: not in the event loop.
        return await asyncio.get_running_loop().run_in_executor(
            self.decoders, decode, body, kind, self.settings.max_pixels
        )

    async def live(self):
        """Restart me if this fails: the event loop hangs, or the batcher's task has died."""
        alive = self.worker is not None and not self.worker.done()
        return JSONResponse({"live": alive}, 200 if alive else 503)

    async def ready(self):
        """Send me requests. Not before a model is loaded, not after SIGTERM."""
        ready = self.models.active is not None and not self.draining
        return JSONResponse({"ready": ready}, 200 if ready else 503)

    async def show_metrics(self):
        return Response(generate_latest(self.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    async def show_models(self):
        active, previous = self.models.active, self.models.previous
        return {
            "versions": self.models.versions(),
            "active": active.version,
            "previous": previous.version if previous else None,
            "metadata": active.metadata,
        }

    async def activate(self, request: Request, version: int):
        return await self._change(request, self.models.activate(version))

    async def rollback(self, request: Request):
        return await self._change(request, self.models.rollback())

    async def _change(self, request: Request, change):
        given, token = request.headers.get("authorization", ""), self.settings.admin_token
        # A plain == returns at the first wrong letter, and its time tells how many were right.
        if not token or not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
            change.close()
            raise HTTPException(401 if token else 403, "no right to change the version")
        try:
            await change
        except ModelError as error:
            raise HTTPException(409, str(error)) from error
        log.info("version changed", extra={"fields": {"version": self.models.active.version}})
        return await self.show_models()

    async def __call__(self, scope, receive, send):
        """Around every request: its identifier, one line in the log, the counts."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        began, status = time.perf_counter(), 500
        given = Headers(scope=scope).get("x-request-id", "")
        identifier = given if re.fullmatch(r"[\w.-]{1,64}", given, re.ASCII) else uuid.uuid4().hex
        note = scope["note"] = {}  # the endpoint adds what the log should say

        async def send_on(message):
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = identifier
                if self.draining:
                    headers["Connection"] = "close"
            await send(message)

        predicts = scope["path"] == "/predict"
        self.metrics.in_flight.inc(predicts)
        try:
            await self.app(scope, receive, send_on)
        except Exception:  # the client has had its 500
            log.exception("error", extra={"fields": {"request_id": identifier}})
        finally:
            seconds = time.perf_counter() - began
            self.metrics.in_flight.dec(predicts)
            route = getattr(scope.get("route"), "path", None)
            self.metrics.requests.labels(route if route in self.paths else "other", status).inc()
            if predicts:
                self.metrics.seconds.observe(seconds)
            line = {"request_id": identifier, "method": scope["method"], "path": scope["path"]}
            line |= {"status": status, "ms": round(1000 * seconds, 2), **note}
            log.info("request", extra={"fields": line})


class JsonLines(logging.Formatter):
    def format(self, record):
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname,
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


class Server(uvicorn.Server):
    """Uvicorn, which at SIGTERM closes its socket at once. Ours first says that it is not ready."""

    def __init__(self, service: Service):
        super().__init__(
            uvicorn.Config(
                service,
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=math.ceil(service.settings.deadline_ms / 1000) + 1,
            )
        )
        self.service = service
        self.closing_at = math.inf

    def handle_exit(self, sig, frame):
        if sig == signal.SIGINT or self.service.draining:  # Control-C, or told twice
            self.closing_at = 0
        else:
            self.closing_at = time.monotonic() + self.service.settings.drain_seconds
        self.service.draining = True

    async def on_tick(self, counter):
        """Ten times a second."""
        if self.service.draining:
            self.service.batcher.hurry()
            self.should_exit = time.monotonic() >= self.closing_at
        return await super().on_tick(counter)


def main():
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    try:
        settings = Settings.from_environment()
    except ValueError as error:
        sys.exit(f"a setting is wrong: {error}")
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # With the protocol named, asyncio switches off Nagle's algorithm. Without, each answer would
    # wait about 40 ms for an acknowledgement that the client delays.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((settings.host, settings.port))
    address = {"host": settings.host, "port": listener.getsockname()[1]}
    log.info("listening", extra={"fields": address})
    server = Server(Service(settings))
    # Uvicorn takes the signals while it runs and then gives them back. Told before or after that,
    # we must not die of it.
    signal.signal(signal.SIGTERM, server.handle_exit)
    server.run(sockets=[listener])
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    log.info("stopped")


if __name__ == "__main__":
    main()
