"""examples/serving: every promise of its README, kept by the service as a process of its own.

The models are tiny ONNX graphs made here. Nothing waits for a fixed time: a long `max_delay_ms`
keeps requests in the queue for as long as a test needs them there.
"""

import asyncio
import concurrent.futures
import contextlib
import hashlib
import http.client
import importlib.util
import io
import json
import re
import signal
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zlib
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import numpy as np
import pytest
import yaml

for module in ("fastapi", "onnx", "onnxruntime", "PIL", "prometheus_client", "uvicorn"):
    pytest.importorskip(module)

import onnx  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from PIL import Image  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples/serving"
CLASSES = [f"class {i}" for i in range(10)]
PATIENCE = 60  # seconds until a condition that should hold at once counts as a failure
TOKEN = "a token of the tests"
LONG = 600_000  # ms


def module(name: str):
    """A module of the example, which is a folder of programs and not a package."""
    if name not in sys.modules:
        sys.path.insert(0, str(EXAMPLE))
        try:
            importlib.import_module(name)
        finally:
            sys.path.remove(str(EXAMPLE))
    return sys.modules[name]


load = module("load")


# --- models -------------------------------------------------------------------------------------


def graph(favourite: int, kind=TensorProto.UINT8, name="image", batch="N", classes=10) -> bytes:
    """A classifier whose answer is `favourite`, the more so the brighter the image is."""
    weights = np.zeros((784, classes), np.float32)
    weights[:, favourite] = 0.0005
    nodes = [
        helper.make_node("Cast", [name], ["grey"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["grey"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    whole = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info(name, kind, [batch, 28, 28])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [batch, classes])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(whole, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def publish(models: Path, version: int, content: bytes, sha256: str | None = None):
    folder = models / str(version)
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(content)
    sha256 = sha256 or hashlib.sha256(content).hexdigest()
    (folder / "metadata.json").write_text(json.dumps({"sha256": sha256, "classes": CLASSES}))


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """Versions 1 and 2 are sound: they answer class 1 and class 2. The others are not."""
    folder = tmp_path_factory.mktemp("models")
    publish(folder, 1, graph(1))
    publish(folder, 2, graph(2))
    publish(folder, 11, graph(1), sha256=hashlib.sha256(b"another file").hexdigest())
    publish(folder, 12, graph(1, kind=TensorProto.FLOAT))
    publish(folder, 13, graph(1, name="input"))
    publish(folder, 14, graph(1, batch=1))
    publish(folder, 15, graph(1, classes=9))
    publish(folder, 16, b"this is not a graph")
    publish(folder, 17, graph(1))
    (folder / "17/metadata.json").write_text("{}")
    return folder


# --- asking -------------------------------------------------------------------------------------

IMAGE = np.full((28, 28), 200, np.uint8)
RAW = "application/octet-stream"


class Client:
    """Asks one service."""

    def __init__(self, url, process, log):
        self.url, self.process, self.log = url, process, log
        self.host, self.port = urlsplit(url).hostname, urlsplit(url).port

    def ask(self, path="/predict", body=None, headers=(), method=None):
        """The answer: status, headers, json (or text)."""
        request = urllib.request.Request(
            self.url + path, data=body, headers=dict(headers), method=method
        )
        try:
            answer = load.DIRECT.open(request, timeout=PATIENCE)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            text = answer.read().decode()
        is_json = answer.headers["content-type"] == "application/json"
        return SimpleNamespace(
            status=answer.status, headers=answer.headers, text=text,
            json=json.loads(text) if is_json else None,
        )  # fmt: skip

    def predict(self, body=None, kind=RAW, **headers):
        body = IMAGE.tobytes() if body is None else body
        return self.ask(body=body, headers={"Content-Type": kind} | headers)

    def change(self, what, token=TOKEN):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return self.ask(f"/models/{what}", b"", headers)

    def metrics(self) -> dict[str, float]:
        """By name with labels, such as `requests_total{path="/predict",status="200"}`."""
        lines = [line for line in self.ask("/metrics").text.splitlines() if line[0] != "#"]
        return {name: float(value) for name, _, value in (s.rpartition(" ") for s in lines)}

    def lines(self, event="request"):
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [line for line in lines if line["event"] == event]


def until(condition, what: str):
    """The first true value of `condition()`."""
    give_up = time.monotonic() + PATIENCE
    while time.monotonic() < give_up:
        if value := condition():
            return value
        time.sleep(0.01)
    raise AssertionError(f"never came: {what}")


@pytest.fixture
def start(models, tmp_path):
    """Starts services with the given settings, and stops them after the test."""
    with contextlib.ExitStack() as stack:

        def starter(**settings):
            log = tmp_path / f"log-{time.monotonic_ns()}.txt"
            defaults = {"version": 1, "deadline_ms": 1000 * PATIENCE, "admin_token": TOKEN}
            url, process = stack.enter_context(
                load.running(models, log, PATIENCE, **(defaults | settings))
            )
            return Client(url, process, log)

        yield starter


@pytest.fixture(scope="module")
def shared(models, tmp_path_factory):
    """One service for the tests that leave no trace in it."""
    log = tmp_path_factory.mktemp("log") / "log.txt"
    settings = {"version": 1, "max_bytes": 100_000, "max_pixels": 500_000, "admin_token": TOKEN}
    settings |= {"deadline_ms": 1000 * PATIENCE}
    with load.running(models, log, PATIENCE, **settings) as (url, process):
        yield Client(url, process, log)


@pytest.fixture
def threads():
    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        yield pool


def png(picture: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", **options)
    return file.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + check


def hollow_png(width: int, height: int, pixels: bytes = b"", more: bytes = b"") -> bytes:
    """A grey PNG that declares a size, with whatever compressed pixels and further chunks."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header) + more + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


# --- answers ------------------------------------------------------------------------------------


def test_an_answer_has_the_class_all_probabilities_and_the_version(shared):
    answer = shared.predict()
    assert answer.status == 200
    assert answer.json["class"] == "class 1"
    assert answer.json["version"] == 1
    assert list(answer.json["probabilities"]) == CLASSES
    assert sum(answer.json["probabilities"].values()) == pytest.approx(1, abs=1e-5)


def test_raw_bytes_png_and_jpeg_of_one_image_get_one_answer(shared):
    jpeg = io.BytesIO()
    Image.fromarray(IMAGE).save(jpeg, "JPEG", quality=100)
    raw = shared.predict().json
    assert shared.predict(png(IMAGE), "image/png").json == raw
    assert shared.predict(jpeg.getvalue(), "image/jpeg; charset=binary").json == raw


def test_a_large_coloured_picture_is_made_small_and_grey(shared):
    decode = module("service").decode
    large = np.zeros((280, 280, 4), np.uint8)
    large[:140, :, 1] = 255
    large[..., 3] = 255
    large[:, :140, 3] = 0  # transparent: black
    image = decode(png(large), "image/png", 10**6)
    assert image.shape == (28, 28)
    assert image.dtype == np.uint8
    assert (image[:14, 14:] == 150).all()  # green in ITU-R 601
    assert (image[14:] == 0).all()
    assert (image[:, :14] == 0).all()


def test_a_photograph_that_lies_on_its_side_is_set_upright(shared):
    decode = module("service").decode
    upright = np.zeros((28, 28), np.uint8)
    upright[:14] = 255
    turned = Image.fromarray(np.rot90(upright).copy())  # what a camera on its side stores
    exif = turned.getexif()
    exif[0x0112] = 6  # turn by 90 degrees to the right
    file = io.BytesIO()
    turned.save(file, "PNG", exif=exif)
    assert (decode(file.getvalue(), "image/png", 10**6) == upright).all()


def test_requests_that_come_together_are_computed_together(start, threads):
    client = start(max_batch=8, max_delay_ms=LONG)
    answers = list(threads.map(lambda _: client.predict(), range(8)))
    assert [answer.status for answer in answers] == [200] * 8
    metrics = client.metrics()
    assert metrics['batch_images_bucket{le="4.0"}'] == 0
    assert metrics['batch_images_bucket{le="8.0"}'] == 1
    assert {line["batch"] for line in client.lines() if line["path"] == "/predict"} == {8}


def test_each_answer_of_a_batch_goes_to_its_own_request(start, threads):
    client = start(max_batch=16, max_delay_ms=LONG)
    images = [np.full((28, 28), i, np.uint8) for i in range(16)]
    answers = list(threads.map(lambda image: client.predict(image.tobytes()), images))
    for image, answer in zip(images, answers, strict=True):
        odds = np.exp(784 * 0.0005 * image[0, 0])
        assert answer.json["probabilities"]["class 1"] == pytest.approx(odds / (odds + 9), abs=1e-4)


def test_an_answer_does_not_wait_for_an_acknowledgement(shared):
    """Nagle's algorithm and a client's delayed acknowledgement cost 40 ms on a kept connection."""
    columns = load.generate(shared.url, IMAGE[None], 1, clients=1)
    latencies = columns["answered"] - columns["due"]
    assert np.median(latencies[len(latencies) // 2 :]) < 0.035 or latencies.min() < 0.01


def test_the_delay_is_bounded(start):
    client = start(max_batch=32, max_delay_ms=50)
    assert client.predict().status == 200, "alone, and answered all the same"
    assert client.metrics()["batch_images_count"] == 1


BLACK = zlib.compress(bytes(28 * 29))  # the pixels of a PNG

# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind", "body"),
    [
        (422, RAW, b"\0" * 783),
        (422, RAW, b""),
        (415, "text/plain", b"\0" * 784),
        (415, "", b"\0" * 784),
        (415, "image/gif", b"GIF89a"),
        (422, "image/png", b"not a picture"),
        (422, "image/jpeg", png(IMAGE)),  # the type is what was said, not what Pillow can guess
        (422, "image/png", png(IMAGE)[:-40]),
        (422, "image/png", hollow_png(28, 28, b"not compressed")),
        # Exif data that stop too early: Pillow raises struct.error.
        (422, "image/png", hollow_png(28, 28, BLACK, chunk(b"eXIf", b"MM\0*\0"))),
        (415, "image/png", png(np.zeros((28, 28), np.uint16))),
        (413, RAW, b"\0" * 100_001),
        (413, RAW, b"\0" * 900_000),
    ],
)
def test_a_wrong_body_is_refused_with_a_reason(shared, status, kind, body):
    answer = shared.predict(body, kind)
    assert answer.status == status
    assert answer.json["detail"]


@pytest.mark.parametrize(("width", "height"), [(50_000, 50_000), (1_000, 501), (2**31 - 1, 1)])
def test_a_decompression_bomb_is_refused_before_it_is_decompressed(shared, width, height):
    pixels = zlib.compress(bytes(1000))
    answer = shared.predict(hollow_png(width, height, pixels), "image/png")
    assert answer.status == 413
    assert "pixels" in answer.json["detail"]


def test_a_small_picture_with_a_gigabyte_behind_it_does_no_harm(shared):
    squeeze = zlib.compressobj(9)
    zeros = bytes(1_000_000)
    pixels = b"".join(squeeze.compress(zeros) for _ in range(60)) + squeeze.flush()
    answer = shared.predict(hollow_png(28, 28, pixels), "image/png")
    assert answer.status in (200, 422)
    assert shared.predict().status == 200


def test_a_body_that_lies_about_its_length_stops_at_the_limit(shared):
    connection = http.client.HTTPConnection(shared.host, shared.port, timeout=PATIENCE)
    connection.putrequest("POST", "/predict")
    connection.putheader("Content-Type", RAW)
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    with contextlib.suppress(ConnectionError):  # the service may hang up while we still send
        for _ in range(30):
            connection.send(b"2710\r\n" + b"\0" * 10_000 + b"\r\n")
    assert connection.getresponse().status == 413
    connection.close()


def test_a_body_that_never_comes_is_given_up(start):
    client = start(deadline_ms=300)
    connection = http.client.HTTPConnection(client.host, client.port, timeout=PATIENCE)
    connection.putrequest("POST", "/predict")
    connection.putheader("Content-Type", RAW)
    connection.putheader("Content-Length", "784")
    connection.endheaders()
    connection.send(b"\0" * 100)
    assert connection.getresponse().status == 408
    connection.close()


def test_an_unknown_path_is_not_a_new_time_series(shared):
    assert shared.ask("/nothing").status == 404
    shared.metrics()
    before = set(shared.metrics())
    for i in range(20):
        assert shared.ask(f"/nothing/{i}").status == 404
    assert set(shared.metrics()) == before


# --- load ---------------------------------------------------------------------------------------


def test_a_full_queue_is_refused_at_once_and_says_when_to_come_back(start, threads):
    client = start(max_batch=64, max_delay_ms=LONG, queue_limit=5)
    waiting = [threads.submit(client.predict) for _ in range(5)]
    until(lambda: client.metrics()["queue_length"] == 5, "five images in the queue")
    refused = client.predict(bytes(900_000))  # a large body, too, is told why
    assert refused.status == 503
    assert int(refused.headers["Retry-After"]) >= 1
    client.process.send_signal(signal.SIGTERM)  # so that nobody waits for the long delay
    assert [future.result().status for future in waiting] == [200] * 5


def test_a_request_past_its_deadline_gets_504_and_is_not_computed(start):
    client = start(max_batch=64, max_delay_ms=LONG, deadline_ms=200)
    assert client.predict().status == 504
    metrics = client.metrics()
    assert metrics["queue_length"] == 0
    assert metrics["batch_images_count"] == 0


def test_a_client_that_hangs_up_takes_its_request_along(start):
    client = start(max_batch=64, max_delay_ms=LONG)
    connection = http.client.HTTPConnection(client.host, client.port, timeout=PATIENCE)
    connection.request("POST", "/predict", IMAGE.tobytes(), {"Content-Type": RAW})
    until(lambda: client.metrics()["queue_length"] == 1, "an image in the queue")
    connection.close()
    until(lambda: client.metrics()["queue_length"] == 0, "an empty queue")
    metrics = until(
        lambda: (m := client.metrics())["in_flight"] == 0 and m, "the end of the request"
    )
    assert metrics['requests_total{path="/predict",status="499"}'] == 1
    assert metrics["batch_images_count"] == 0


def test_an_inference_that_fails_costs_its_batch_and_not_the_service():
    """In this process: no sound model fails."""
    batching = module("batching")

    def run(images):
        if images.max() == 0:
            raise RuntimeError("no light")
        return None, images[:, 0, :2]

    async def scenario():
        batcher = batching.Batcher(run, max_batch=4, max_delay=0, limit=10)
        worker = asyncio.create_task(batcher.work())
        deadline = asyncio.get_running_loop().time() + PATIENCE
        dark = batcher.submit(np.zeros((28, 28), np.uint8), deadline)
        with pytest.raises(RuntimeError, match="no light"):
            await dark.answer
        bright = batcher.submit(IMAGE, deadline)
        assert (await bright.answer)[1].tolist() == [200, 200]
        worker.cancel()

    asyncio.run(scenario())


# --- versions -----------------------------------------------------------------------------------


def test_the_highest_version_starts_unless_another_is_named(tmp_path, models):
    folder = tmp_path / "models"
    for version in (1, 2):
        publish(folder, version, graph(version))
    with load.running(folder, tmp_path / "log.txt", PATIENCE) as (url, process):
        client = Client(url, process, tmp_path / "log.txt")
        assert client.predict().json["version"] == 2


def test_a_version_is_swapped_under_load_without_one_failed_request(start):
    client = start(max_batch=4)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answers = pool.submit(
            load.generate, client.url, IMAGE[None], seconds=2, clients=4, warm_up=0
        )
        for what, version in [("2/activate", 2), ("rollback", 1), ("2/activate", 2)]:
            seen = client.metrics()["request_seconds_count"]
            until(
                lambda seen=seen: (
                    client.metrics()["request_seconds_count"] > seen + 5 or answers.done()
                ),
                "traffic",
            )
            assert client.change(what).json["active"] == version
        columns = answers.result()
    assert set(columns["status"]) == {200}
    assert {1} < set(columns["version"]) <= {1, 2}


def test_answers_change_with_the_version_and_rollback_brings_them_back(start):
    client = start()
    assert client.predict().json["class"] == "class 1"
    assert client.change("2/activate").json["previous"] == 1
    assert client.predict().json["class"] == "class 2"
    assert client.change("rollback").json["active"] == 1
    assert client.predict().json["class"] == "class 1"
    assert client.metrics()["active_version"] == 1


def test_activating_a_version_twice_keeps_the_way_back(start):
    client = start()
    assert client.change("2/activate").json["previous"] == 1
    assert client.change("2/activate").json["previous"] == 1
    assert client.change("rollback").json["active"] == 1


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        (11, "not the file that metadata.json names"),
        (12, r"tensor\(float\)"),
        (13, "'input'"),
        (14, "batch"),
        (15, "probabilities"),
        (16, "does not run"),
        (17, "cannot be read"),
        (99, "no version 99"),
    ],
)
def test_a_bad_version_is_refused_with_a_reason_and_the_old_one_goes_on(shared, version, reason):
    answer = shared.change(f"{version}/activate")
    assert answer.status == 409
    assert re.search(reason, answer.json["detail"])
    assert shared.predict().json["version"] == 1


def test_there_is_nothing_to_roll_back_to_at_the_start(shared):
    assert shared.change("rollback").status == 409


def test_a_service_does_not_start_with_a_bad_version(models, tmp_path):
    with (
        pytest.raises(RuntimeError, match=r"metadata\.json names"),
        load.running(models, tmp_path / "log.txt", PATIENCE, version=11),
    ):
        pass


@pytest.mark.parametrize("token", [None, "", "wrong", TOKEN + "x", TOKEN[:-1], "ä"])
def test_versions_change_only_with_the_token(shared, token):
    headers = {} if token is None else {"Authorization": f"Bearer {token}".encode()}
    assert shared.ask("/models/2/activate", b"", headers).status == 401
    assert shared.ask("/models/rollback", b"", headers).status == 401
    assert shared.predict().json["version"] == 1


def test_without_a_token_in_the_environment_nobody_changes_versions(start):
    client = start(admin_token="")
    for token in (None, "", TOKEN):
        assert client.change("2/activate", token).status == 403


@pytest.mark.parametrize(
    "path", ["/models/../activate", "/models/%2e%2e/activate", "/models/x/activate"]
)
def test_a_version_is_a_number(shared, path):
    assert shared.ask(path, b"", {"Authorization": f"Bearer {TOKEN}"}).status in (404, 405, 422)


# --- stopping -----------------------------------------------------------------------------------


def test_sigterm_with_requests_in_the_queue_answers_them_all(start, threads):
    client = start(max_batch=64, max_delay_ms=LONG, drain_seconds=0)
    waiting = [threads.submit(client.predict) for _ in range(20)]
    until(lambda: client.metrics()["queue_length"] == 20, "twenty images in the queue")
    client.process.send_signal(signal.SIGTERM)
    assert [future.result().status for future in waiting] == [200] * 20
    assert client.process.wait(PATIENCE) == 0
    assert client.lines("stopped")


def test_after_sigterm_it_is_not_ready_and_answers_who_has_not_heard_of_it(start):
    client = start(drain_seconds=PATIENCE)
    connection = http.client.HTTPConnection(client.host, client.port, timeout=PATIENCE)
    answers = []

    def predict():
        connection.request("POST", "/predict", IMAGE.tobytes(), {"Content-Type": RAW})
        with connection.getresponse() as answer:
            answer.read()
            answers.append((answer.status, answer.headers["Connection"]))

    predict()
    client.process.send_signal(signal.SIGTERM)
    until(lambda: client.ask("/ready").status == 503, "not ready")
    assert client.ask("/live").status == 200, "nobody should restart it"
    predict()  # on the old connection
    predict()  # on a new one
    assert answers == [(200, None), (200, "close"), (200, "close")]
    assert client.process.poll() is None
    client.process.send_signal(signal.SIGTERM)  # told twice: now
    assert client.process.wait(PATIENCE) == 0


def test_the_service_ends_with_the_block_that_started_it_whatever_happens(models, tmp_path):
    with (
        pytest.raises(ZeroDivisionError),
        load.running(models, tmp_path / "log.txt", PATIENCE, version=1) as (_, process),
    ):
        raise ZeroDivisionError
    assert process.poll() == 0


# --- watching -----------------------------------------------------------------------------------


def test_live_and_ready(shared):
    assert shared.ask("/live").json == {"live": True}
    assert shared.ask("/ready").json == {"ready": True}


def test_the_metrics_add_up(start, threads):
    client = start(max_batch=4, max_bytes=1000)
    statuses = list(threads.map(lambda _: client.predict().status, range(30)))
    statuses += [client.predict(b"\0" * 10).status for _ in range(3)]
    statuses += [client.predict(b"\0" * 2000).status for _ in range(2)]
    metrics = until(lambda: (m := client.metrics())["in_flight"] == 0 and m, "the last request")

    def count(status):
        return metrics.get(f'requests_total{{path="/predict",status="{status}"}}', 0)

    assert [count(status) for status in (200, 422, 413)] == [30, 3, 2]
    assert sum(count(status) for status in set(statuses)) == len(statuses)
    assert metrics["request_seconds_count"] == len(statuses)
    assert metrics['predictions_total{version="1"}'] == metrics["batch_images_sum"] == 30
    assert metrics["inference_seconds_count"] == metrics["batch_images_count"] >= 30 / 4
    assert metrics["queue_length"] == 0
    assert metrics['request_seconds_bucket{le="+Inf"}'] == len(statuses)


def test_the_log_is_json_with_identifiers_and_without_the_image(start):
    client = start()
    secret = bytes(range(64)) * 12 + b"A face of a person"[:16]
    answer = client.predict(secret, **{"X-Request-ID": "from-the-caller.1"})
    assert answer.headers["X-Request-ID"] == "from-the-caller.1"
    (line,) = until(
        lambda: [ln for ln in client.lines() if ln["path"] == "/predict"], "the line in the log"
    )
    assert line["request_id"] == "from-the-caller.1"
    assert line["status"] == 200
    assert line["version"] == 1
    assert line["bytes"] == 784
    assert line["ms"] > 0
    assert "A face" not in client.log.read_text()


@pytest.mark.parametrize("identifier", ['x", "status": "0', "a b", "x" * 65, "é"])
def test_an_identifier_that_could_forge_a_log_line_is_replaced(shared, identifier):
    answer = shared.predict(**{"X-Request-ID": identifier.encode()})
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["X-Request-ID"])


# --- settings and files -------------------------------------------------------------------------


def test_a_wrong_setting_stops_the_start_and_is_named():
    settings = module("service").Settings
    assert settings.from_environment({"SERVING_MAX_BATCH": "7"}).max_batch == 7
    with pytest.raises(ValueError, match="SERVING_MAX_BATCH"):
        settings.from_environment({"SERVING_MAX_BATCH": "0"})
    with pytest.raises(ValueError, match=r"SERVING_THREADS.*eight"):
        settings.from_environment({"SERVING_THREADS": "eight"})


def test_the_readme_lists_every_setting_and_endpoint():
    readme = (EXAMPLE / "README.md").read_text()
    service = module("service")
    for field in service.fields(service.Settings):
        assert f"`SERVING_{field.name.upper()}`" in readme
    for path in service.Service(service.Settings()).paths:
        assert f"{path}`" in readme


def test_the_lock_has_the_versions_that_these_tests_run_with():
    def pins(path):
        return set(re.findall(r"^([\w-]+)==([\w.]+)", path.read_text(), flags=re.MULTILINE))

    own, whole = pins(EXAMPLE / "requirements.txt"), pins(ROOT / "requirements.txt")
    wanted = (EXAMPLE / "requirements.in").read_text().split()
    assert {re.split("[<>=]", line)[0] for line in wanted} <= {name for name, _ in own}
    assert own <= whole
    text = (EXAMPLE / "requirements.txt").read_text()
    assert text.count("==") <= text.count("--hash=sha256:")
    assert "://" not in text


def test_the_dockerfile_pins_its_base_and_runs_without_root():
    lines = (EXAMPLE / "Dockerfile").read_text().splitlines()
    bases = [line.split()[1] for line in lines if line.startswith("FROM")]
    assert all(re.search(r":\d+\.\d+\.\d+-slim", base) or base.islower() for base in bases)
    assert any("--require-hashes" in line for line in lines)
    copied = {name for line in lines if line.startswith("COPY") for name in line.split()}
    assert {"service.py", "batching.py", "models.py"} <= copied
    user = [line.split()[1] for line in lines if line.startswith("USER")]
    assert user[-1].partition(":")[0] not in ("root", "0")
    (command,) = [line for line in lines if line.startswith("CMD")]
    assert json.loads(command.removeprefix("CMD "))[-1] == "service.py", "no shell: SIGTERM arrives"


@pytest.fixture(scope="module")
def manifests():
    documents = list(yaml.safe_load_all((EXAMPLE / "kubernetes.yaml").read_text()))
    return {document["kind"]: document for document in documents}


def test_the_manifests_are_valid(manifests):
    validate = pytest.importorskip("kubernetes_validate").validate
    for document in manifests.values():
        for version in ("1.34", "1.37"):
            validate(document, version, strict=True)
    broken = json.loads(json.dumps(manifests["Deployment"]))
    broken["spec"]["replicaz"] = 2
    with pytest.raises(Exception, match="replicaz"):
        validate(broken, "1.37", strict=True)


def test_the_manifests_fit_each_other_and_the_service(manifests):
    service = module("service")
    deployment, names = manifests["Deployment"], {f.name for f in service.fields(service.Settings)}
    pod = deployment["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    settings = {v["name"].removeprefix("SERVING_").lower(): v for v in container["env"]}
    assert set(settings) <= names, "a misspelt variable would be ignored in silence"
    assert (
        deployment["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    )
    for kind in ("Service", "PodDisruptionBudget"):
        selector = manifests[kind]["spec"]["selector"]
        selector = selector.get("matchLabels", selector)
        assert selector.items() <= pod["metadata"]["labels"].items()
    target = manifests["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert target["name"] == deployment["metadata"]["name"]
    assert manifests["Service"]["spec"]["ports"][0]["targetPort"] == container["ports"][0]["name"]
    paths = {container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("liveness", "readiness")}
    assert paths == {"/live", "/ready"}
    drain = float(settings["drain_seconds"]["value"])
    deadline = float(settings["deadline_ms"]["value"]) / 1000
    assert pod["spec"]["terminationGracePeriodSeconds"] > drain + deadline + 2
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


# --- the load generator -------------------------------------------------------------------------


def test_the_load_generator_sends_at_the_rate_and_counts_from_the_due_moment(shared):
    columns = load.generate(shared.url, IMAGE[None], seconds=1, rate=100, seed=3)
    assert 60 < len(columns["due"]) < 150
    assert set(columns["status"]) == {200}
    assert (columns["answered"] >= columns["sent"]).all()
    gaps = np.diff(columns["due"])
    assert 0.5 < gaps.std() / gaps.mean() < 2, "exponential gaps have a ratio of 1"
    summary = load.summary(columns)
    assert summary["p50"] <= summary["p95"] <= summary["p99"]
    assert summary["statuses"] == {200: len(columns["due"])}


def test_the_capacity_of_a_closed_loop_counts_the_time_of_the_last_answers():
    seconds = 0.01  # of one answer; 64 clients, one server, 100 requests
    answered = seconds * np.arange(1, 101)
    due = np.concatenate([np.zeros(64), answered[:36]])
    columns = {"due": due, "sent": due, "answered": answered, "status": np.full(100, 200)}
    assert load.summary(columns)["answered"] == pytest.approx(1 / seconds)
    with pytest.raises(ValueError, match="no request was sent"):
        load.summary({name: values[:0] for name, values in columns.items()})


def test_the_load_generator_counts_requests_that_nobody_answers(tmp_path):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never answers
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        columns = load.generate(
            url, IMAGE[None], 0.2, rate=100, timeout=0.2, connections=3, warm_up=0
        )
    assert len(columns["status"]) > 3
    assert set(columns["status"]) == {load.LOST}


def test_the_commands_of_the_readme_for_the_load_test_work(shared):
    command = [
        sys.executable,
        EXAMPLE / "load.py",
        shared.url,
        "--clients",
        "2",
        "--seconds",
        "0.2",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert json.loads(done.stdout)["statuses"].keys() == {"200"}
