"""Data sets: what `load` returns, where files come from, and what happens when they are damaged."""

import dataclasses
import gzip
import hashlib
import os
import shutil
import struct
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from typer.testing import CliRunner

from panorama.data import REGISTRY, DataError, load, sets, storage
from panorama.data.cli import data_app
from panorama.data.registry import DataSet, File


@pytest.fixture(autouse=True)
def private_folders(tmp_path, monkeypatch):
    """No test sees or touches the data of whoever runs it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PANORAMA_DATA", str(tmp_path / "own"))
    monkeypatch.setattr(storage, "SYSTEM", tmp_path / "system")


def panorama_data(*arguments):
    return CliRunner().invoke(data_app, arguments)


# The registry


@pytest.mark.parametrize("dataset", REGISTRY.values(), ids=REGISTRY)
def test_bundled_file_is_the_registered_one(dataset):
    path = storage.BUNDLED / dataset.bundled.name
    assert path.stat().st_size == dataset.bundled.size
    assert hashlib.sha256(path.read_bytes()).hexdigest() == dataset.bundled.sha256


def test_every_bundled_file_has_its_licence_beside_it():
    notes = (storage.BUNDLED / "README.md").read_text(encoding="utf-8")
    bundled = {path.name for path in storage.BUNDLED.iterdir()} - {"README.md"}
    bundled -= {"timeline.csv", "clothes_classifier.npz"}  # the book's own, no data sets
    assert bundled == {dataset.bundled.name for dataset in REGISTRY.values()}
    for dataset in REGISTRY.values():
        section = notes.split(f"## {dataset.bundled.name}")[1].split("\n## ")[0]
        assert "Licence: " in section
        assert dataset.homepage in section


def test_downloads_use_https_and_have_a_second_mirror():
    for file in (file for dataset in REGISTRY.values() for file in dataset.full):
        assert len({url.split("/")[2] for url in file.urls}) >= 2
        assert all(url.startswith("https://") for url in file.urls)


# Fashion-MNIST from the bundled file


def test_fashion_mnist_shapes_and_types():
    data = load("fashion-mnist")
    assert (data.x_train.shape, data.x_train.dtype) == ((10_000, 28, 28), np.uint8)
    assert (data.y_train.shape, data.y_train.dtype) == ((10_000,), np.int64)
    assert (data.x_test.shape, data.y_test.shape) == ((2_000, 28, 28), (2_000,))
    assert data.x_train.max() == 255
    assert data.class_names[data.y_train[0]] == "Coat"
    assert np.bincount(data.y_train).tolist() == [1_000] * 10
    assert np.bincount(data.y_test).tolist() == [200] * 10


def test_smaller_draws_are_balanced_reproducible_and_nested():
    data = load("fashion-mnist", train=512, test=100, seed=3)
    assert set(np.bincount(data.y_train)) == {51, 52}
    assert set(np.bincount(data.y_test)) == {10}
    again = load("fashion-mnist", train=512, test=100, seed=3)
    assert np.array_equal(again.x_train, data.x_train)
    assert np.array_equal(again.y_test, data.y_test)
    other = load("fashion-mnist", train=512, test=100, seed=4)
    assert not np.array_equal(other.x_train, data.x_train)
    larger = {image.tobytes() for image in load("fashion-mnist", train=700, seed=3).x_train}
    assert all(image.tobytes() in larger for image in data.x_train)


def test_labels_stay_with_their_images():
    everything = load("fashion-mnist")
    label_of = dict(zip(map(bytes, everything.x_train), everything.y_train.tolist(), strict=True))
    part = load("fashion-mnist", train=200)
    assert [label_of[bytes(image)] for image in part.x_train] == part.y_train.tolist()


# Fashion-MNIST in full


def idx_file(values: np.ndarray) -> bytes:
    header = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    return header + values.tobytes()


@pytest.fixture
def full_set(tmp_path, monkeypatch):
    """A stand-in for the full set, of its size and form; image i has the value i mod 251."""
    fashion = REGISTRY["fashion-mnist"]
    files = []
    folder = tmp_path / "own" / "fashion-mnist"
    folder.mkdir(parents=True)
    for file, rows in zip(fashion.full, (60_000, 60_000, 10_000, 10_000), strict=True):
        values = np.arange(rows) % (251 if "images" in file.name else 10)
        values = values.astype(np.uint8)
        if "images" in file.name:
            values = np.repeat(values, 28 * 28).reshape(rows, 28, 28)
        content = idx_file(values)
        assert len(content) == file.size
        (folder / f"{file.name}.gz").write_bytes(gzip.compress(content, 1))
        files.append(dataclasses.replace(file, sha256=hashlib.sha256(content).hexdigest()))
    monkeypatch.setitem(REGISTRY, "fashion-mnist", dataclasses.replace(fashion, full=tuple(files)))
    return folder


def test_full_set_is_read_from_the_readers_folder_and_checked(full_set):
    data = load("fashion-mnist", train=60_000, test=10_000)
    assert data.x_train.shape == (60_000, 28, 28)
    assert data.x_train[:3, 0, 0].tolist() == [0, 1, 2]
    assert data.y_test[:12].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]

    part = load("fashion-mnist", train=20_000)
    assert np.bincount(part.y_train).tolist() == [2_000] * 10
    bundled = load("fashion-mnist", test=2_000)
    assert np.array_equal(part.x_test, bundled.x_test)  # the test images did not change

    labels = full_set / "train-labels-idx1-ubyte.gz"
    content = bytearray(gzip.decompress(labels.read_bytes()))
    content[100] ^= 1
    labels.write_bytes(gzip.compress(content))
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte\.gz is damaged.*data fetch"):
        load("fashion-mnist", train=20_000)
    result = panorama_data("verify", "fashion-mnist")
    assert result.exit_code == 1
    assert [line for line in result.stdout.splitlines() if line.startswith("CHANGED")] == [
        f"CHANGED  {labels} is damaged: its sha256 is not "
        f"{REGISTRY['fashion-mnist'].full[1].sha256[:12]}…"
    ]


def test_folders_are_searched_in_the_documented_order(tmp_path):
    fashion = REGISTRY["fashion-mnist"]
    name = fashion.full[0].name
    assert storage.locate(fashion, fashion.full[0]) is None
    for folder in ("cache/panorama/fashion-mnist", "system/fashion-mnist", "own"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / f"{name}.gz").touch()
        assert storage.locate(fashion, fashion.full[0]) == tmp_path / folder / f"{name}.gz"


def test_the_distributions_full_set_is_the_registered_one(monkeypatch):
    monkeypatch.undo()
    fashion = REGISTRY["fashion-mnist"]
    paths = [storage.locate(fashion, file) for file in fashion.full]
    if None in paths:
        pytest.skip("the full Fashion-MNIST is not on this machine: `panorama data fetch` gets it")
    data = load("fashion-mnist", train=60_000, test=10_000)
    assert np.bincount(data.y_train).tolist() == [6_000] * 10
    bundled = np.load(storage.BUNDLED / fashion.bundled.name, allow_pickle=False)
    assert np.array_equal(data.x_train[bundled["train_index"]], bundled["x_train"])
    assert np.array_equal(data.y_test[bundled["test_index"]], bundled["y_test"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an idx file"),
        (b"\x80\x04\x95pickle", "not an idx file"),
        (b"\0\0\x0d\x01\0\0\0\x01\0", "not an idx file"),  # floats
        (b"\0\0\x08\x03\0\0", "ends within its header"),
        (b"\0\0\x08\x01\0\0\0\x05abc", r"shape \(5,\) with 3 values"),
    ],
)
def test_idx_headers_are_validated(content, message):
    with pytest.raises(DataError, match=message):
        sets.idx(content)


# The other sets


def test_twemoji_is_split_without_near_copies_on_both_sides():
    data = load("twemoji", test=200, seed=1)
    assert (data.train.image.shape, data.train.image.dtype) == ((1_711, 32, 32, 3), np.uint8)
    assert len(data.test.name) == len(data.test.category) == 200
    assert not set(data.train.codepoint) & set(data.test.codepoint)
    assert not {i.tobytes() for i in data.train.image} & {i.tobytes() for i in data.test.image}
    for side in (data.train, data.test):
        runners = [name for name in side.name if "RUNNING" in name]
        assert len(runners) in (
            0,
            sum("RUNNING" in n for s in (data.train, data.test) for n in s.name),
        )


def test_sentence_pairs_are_filtered_by_length_and_split_by_sentence():
    data = load("web-rv1909-en-es", max_words=12, test=0.1)
    assert (len(data.train.source), len(data.test.source)) == (2_376, 264)
    for side in (data.train, data.test):
        assert len(side.source) == len(side.target)
        assert max(len(text.split()) for text in side.source + side.target) <= 12
    assert not set(data.train.source) & set(data.test.source)
    assert not set(data.train.target) & set(data.test.target)


def test_rated_texts():
    data = load("vader-sentiment", train=1_000, test=500, seed=2)
    assert (len(data.train.text), len(data.test.text)) == (1_000, 500)
    assert data.train.rating.dtype == np.float32
    assert data.train.rating.min() < -2
    assert data.train.rating.max() > 2
    assert set(data.train.source) == {
        "amazonReviewSnippets",
        "movieReviewSnippets",
        "nytEditorialSnippets",
        "tweets",
    }
    assert not set(data.train.text) & set(data.test.text)
    assert load("vader-sentiment", train=1_000, test=500, seed=2).train.text == data.train.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "mnist"}, "there are: fashion-mnist, twemoji, web-rv1909-en-es, vader-sentiment"),
        ({"name": "fashion-mnist", "train": 60_001}, "train=60,001 .*from 1 to 60,000"),
        ({"name": "fashion-mnist", "test": -1}, "test=-1 .*from 1 to 10,000"),
        ({"name": "fashion-mnist", "train": 0.5}, "train is a number of items from 1 to 60,000"),
        ({"name": "twemoji", "train": 1_800}, "train=1,800 .*from 1 to 1,720"),
        ({"name": "twemoji", "test": 1.5}, "a fraction between 0 and 1, not 1.5"),
        ({"name": "twemoji", "max_words": 5}, "max_words is for web-rv1909-en-es"),
        ({"name": "web-rv1909-en-es", "max_words": 0}, "at most 0 words"),
    ],
)
def test_impossible_requests_say_what_is_possible(arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        load(**arguments)
    assert "\n" not in str(caught.value)


# Damage


@pytest.mark.parametrize("name", REGISTRY)
def test_one_changed_byte_is_found_and_named(name, tmp_path, monkeypatch):
    shutil.copytree(storage.BUNDLED, tmp_path / "files")
    monkeypatch.setattr(storage, "BUNDLED", tmp_path / "files")
    path = tmp_path / "files" / REGISTRY[name].bundled.name
    assert panorama_data("verify").exit_code == 0

    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    with pytest.raises(DataError, match=f"{path.name} is damaged.*install dl-panorama again"):
        load(name)
    result = panorama_data("verify")
    assert result.exit_code == 1
    changed = [line for line in result.stdout.splitlines() if line.startswith("CHANGED")]
    assert len(changed) == 1
    assert str(path) in changed[0]


# Downloads, from a server on this machine


CONTENT = np.random.default_rng(0).bytes(200_000)
PACKED = gzip.compress(CONTENT)


@pytest.fixture
def server():
    """Serves CONTENT, well or badly, by the first part of the path; counts the requests."""
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            way = self.path.split("/")[1]
            requests.append(way)
            first_time = requests.count(way) == 1
            body, length = PACKED, len(PACKED)
            if way == "plain":
                body, length = CONTENT, len(CONTENT)
            elif way == "half" or (way == "once-half" and first_time):
                body = PACKED[: length // 2]
            elif way == "promises-less":
                length //= 2
            elif way == "wrong":
                body = gzip.compress(bytes(200_000))
                length = len(body)
            elif way == "bomb":
                body = gzip.compress(bytes(50_000_000))
                length = len(body)
            elif way == "down":
                self.send_error(503)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    httpd.requests = requests
    yield httpd
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def data_set(server, *ways: str) -> DataSet:
    """A data set of one file, at one address for each way of serving it."""
    base = f"http://127.0.0.1:{server.server_port}"
    urls = tuple(f"{base}/{way}/thing{'' if way == 'plain' else '.gz'}" for way in ways)
    file = File("thing", hashlib.sha256(CONTENT).hexdigest(), len(CONTENT), urls)
    return DataSet(
        "toy", "", "", "", "http://example.org", "", REGISTRY["twemoji"].bundled, (file,)
    )


def obtain(dataset: DataSet) -> bytes:
    return storage.obtain(dataset, dataset.full[0])


def cached():
    """Every file in the cache, by name; a left-over part would show."""
    folder = storage.cache_folder()
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("way", ["good", "plain"])
def test_download_is_unpacked_checked_and_kept(server, way):
    dataset = data_set(server, way)
    assert obtain(dataset) == CONTENT
    assert cached() == {"thing": CONTENT}
    assert obtain(dataset) == CONTENT
    assert server.requests == [way]  # the second time from the cache


def test_broken_off_download_is_started_again(server):
    assert obtain(data_set(server, "once-half")) == CONTENT
    assert server.requests == ["once-half", "once-half"]


@pytest.mark.parametrize("way", ["down", "half", "promises-less", "wrong", "bomb"])
def test_second_mirror_takes_over(server, way):
    assert obtain(data_set(server, way, "good")) == CONTENT
    assert server.requests == [way, way, "good"]
    assert cached() == {"thing": CONTENT}


@pytest.mark.parametrize("way", ["down", "half", "promises-less", "wrong", "bomb"])
def test_bad_download_leaves_nothing_behind_and_the_old_file_alone(server, way):
    dataset = data_set(server, way)
    with pytest.raises(DataError, match=r"thing could not be downloaded \(127\.0\.0\.1:\d+: "):
        storage.fetch(dataset, dataset.full[0])
    assert cached() == {}
    old = storage.cache_folder() / "toy" / "thing"
    old.write_bytes(b"old")
    with pytest.raises(DataError):
        storage.fetch(dataset, dataset.full[0])
    assert cached() == {"thing": b"old"}


def test_fetch_command_replaces_a_damaged_file(server, monkeypatch):
    dataset = data_set(server, "good")
    monkeypatch.setitem(REGISTRY, "toy", dataset)
    assert "fetched into" in panorama_data("fetch", "toy").stdout
    (storage.cache_folder() / "toy" / "thing").write_bytes(CONTENT[:-1] + b"?")
    assert panorama_data("verify", "toy").exit_code == 1
    with pytest.raises(DataError, match="thing is damaged"):
        obtain(dataset)
    assert "fetched into" in panorama_data("fetch", "toy").stdout
    assert panorama_data("verify", "toy").exit_code == 0
    assert "already here" in panorama_data("fetch", "toy").stdout


def test_plain_http_is_refused_from_other_machines(server):
    dataset = data_set(server, "good")
    file = dataclasses.replace(dataset.full[0], urls=("http://example.org/thing.gz",))
    with pytest.raises(DataError, match=r"example\.org: not an https address"):
        storage.fetch(dataset, file)


def test_offline_error_says_what_works_and_where_files_go(server, monkeypatch, tmp_path):
    server.server_close()  # nobody answers at this port any more
    fashion = REGISTRY["fashion-mnist"]
    url = f"http://127.0.0.1:{server.server_port}/thing.gz"
    files = tuple(dataclasses.replace(file, urls=(url,)) for file in fashion.full)
    monkeypatch.setitem(REGISTRY, "fashion-mnist", dataclasses.replace(fashion, full=files))
    with pytest.raises(DataError) as caught:
        load("fashion-mnist", train=60_000)
    message = str(caught.value)
    assert "train-images-idx3-ubyte could not be downloaded" in message
    assert "train=10_000, test=2_000 or less" in message
    assert message.endswith(f"into {tmp_path / 'own' / 'fashion-mnist'}")  # PANORAMA_DATA
    assert "\n" not in message
    monkeypatch.delenv("PANORAMA_DATA")
    result = panorama_data("fetch", "fashion-mnist")
    assert result.exit_code == 1
    assert str(tmp_path / "cache" / "panorama" / "fashion-mnist") in result.stderr


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a file system of 128 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or os.name != "posix" or os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    result = subprocess.run(mount, capture_output=True, text=True, check=False)
    if result.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {result.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_full_disk_is_named_and_the_old_file_stays(server, small_disk, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(small_disk))
    dataset = data_set(server, "good", "good")
    old = storage.cache_folder() / "toy" / "thing"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"old")
    with pytest.raises(DataError, match=r"no space left in .*toy for thing \(200,000 bytes\)"):
        storage.fetch(dataset, dataset.full[0])
    assert cached() == {"thing": b"old"}
    assert server.requests == ["good"]  # another mirror would not help


# The commands


def test_list_names_every_set_with_its_licence():
    result = panorama_data("list")
    assert result.exit_code == 0
    for dataset in REGISTRY.values():
        assert dataset.name in result.stdout
        assert dataset.licence in result.stdout


@pytest.mark.parametrize("command", ["fetch", "verify"])
def test_unknown_set_is_a_one_line_error(command):
    result = panorama_data(command, "mnist")
    assert result.exit_code == 2
    assert result.stderr.startswith(
        "error: no data set is called 'mnist'; there are: fashion-mnist"
    )
    assert result.stderr.count("\n") == 1
