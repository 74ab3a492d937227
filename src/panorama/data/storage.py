"""Find a data set's files on this machine, check them, and download what is missing."""

import errno
import gzip
import hashlib
import os
import sys
import tempfile
import zlib
from pathlib import Path
from urllib.parse import urlsplit

from panorama.data.registry import DataError, DataSet, File

BUNDLED = Path(__file__).parent / "files"
# Where Debian's and Ubuntu's dataset-* packages install.
SYSTEM = Path("/usr/share/datasets")
# A download that breaks off is started again once, then the next address has its turn.
ATTEMPTS = 2


def cache_folder() -> Path:
    """The user's cache for panorama: $XDG_CACHE_HOME, or what the operating system has for it."""
    if "XDG_CACHE_HOME" in os.environ:
        base = Path(os.environ["XDG_CACHE_HOME"])
    elif sys.platform == "win32" and "LOCALAPPDATA" in os.environ:
        base = Path(os.environ["LOCALAPPDATA"])
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path.home() / ".cache"
    return base / "panorama"


def folders(dataset: DataSet) -> list[Path]:
    """Where the files of the full set are looked for, in this order."""
    found = [SYSTEM / dataset.name, cache_folder() / dataset.name]
    if os.environ.get("PANORAMA_DATA"):
        own = Path(os.environ["PANORAMA_DATA"]).expanduser()
        found = [own / dataset.name, own, *found]
    return found


def locate(dataset: DataSet, file: File) -> Path | None:
    """The file itself or its .gz in the first of the folders that has it, not yet checked."""
    if not file.urls:
        return BUNDLED / file.name
    for folder in folders(dataset):
        for name in (file.name, f"{file.name}.gz"):
            if (folder / name).is_file():
                return folder / name
    return None


def read(path: Path, file: File) -> bytes:
    """The file's bytes, unpacked and checked. Raises DataError, naming the file, if they differ."""
    try:
        if path.name == f"{file.name}.gz":
            with gzip.open(path) as stream:
                content = stream.read(file.size + 1)  # no more, whatever the file unpacks to
        else:
            content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path} is missing: install dl-panorama again") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} is damaged: {error}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    if len(content) != file.size:
        raise DataError(
            f"{path} is damaged: it should have {file.size:,} bytes and has "
            f"{'more' if len(content) > file.size else f'{len(content):,}'}"
        )
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise DataError(f"{path} is damaged: its sha256 is not {file.sha256[:12]}…")
    return content


def obtain(dataset: DataSet, file: File) -> bytes:
    """The file's checked bytes, from this machine or else downloaded into the cache.

    Raises DataError when a copy on this machine is damaged, and when no address can be reached.
    """
    path = locate(dataset, file) or fetch(dataset, file)
    try:
        return read(path, file)
    except DataError as error:
        remedy = (
            f"delete it, and `panorama data fetch {dataset.name}` gets it anew"
            if file.urls
            else "install dl-panorama again"
        )
        raise DataError(f"{error}; {remedy}") from error


def fetch(dataset: DataSet, file: File) -> Path:
    """Download one file into the cache, unpacked, and return its path.

    The file appears under its name only when it is complete and its hash is right; until then a
    copy that was there stays as it is. Raises DataError with what went wrong at every address.
    """
    try:
        import pooch  # noqa: F401
    except ModuleNotFoundError as error:
        raise DataError(
            f"{file.name} has to be downloaded, and that needs pooch: "
            f"pip install 'dl-panorama[data]'. {_without_download(dataset)}"
        ) from error
    target = cache_folder() / dataset.name / file.name
    problems = []
    for url in file.urls:
        for _ in range(ATTEMPTS):
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryDirectory(dir=target.parent, prefix=".part-") as part:
                    _download(url, Path(part), file, target)
                return target
            except DataError as error:
                problems.append(f"{urlsplit(url).netloc}: {error}")
            except OSError as error:  # the network's errors are of this kind, too
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise DataError(
                        f"no space left in {target.parent} for {file.name} ({file.size:,} bytes): "
                        "free some, or set XDG_CACHE_HOME to a folder on another disk"
                    ) from error
                if error.errno in (errno.EACCES, errno.EROFS):
                    raise DataError(
                        f"{target.parent} cannot be written to: "
                        "set XDG_CACHE_HOME to a folder that can"
                    ) from error
                problems.append(f"{urlsplit(url).netloc}: {type(error).__name__}")
    raise DataError(
        f"{file.name} could not be downloaded ({'; '.join(dict.fromkeys(problems))}). "
        + _without_download(dataset)
    )


def _without_download(dataset: DataSet) -> str:
    sizes = "train=10_000, test=2_000" if dataset.name == "fashion-mnist" else "the bundled part"
    folder = folders(dataset)[0]
    if not os.environ.get("PANORAMA_DATA"):
        folder = cache_folder() / dataset.name  # the first is the system's
    return (
        f"What needs no network: {sizes} or less. Or put {', '.join(f.name for f in dataset.full)} "
        f"(as they are or .gz, from {dataset.homepage}) into {folder}"
    )


def _download(url: str, part: Path, file: File, target: Path) -> None:
    host = urlsplit(url)
    if host.scheme != "https" and host.hostname not in ("127.0.0.1", "localhost"):
        raise DataError("not an https address")
    import pooch

    raw = part / (file.name + (".gz" if host.path.endswith(".gz") else ""))
    pooch.HTTPDownloader(progressbar=_progress_bar(), timeout=30)(url, str(raw), None)
    try:
        content = read(raw, file)
    except DataError:
        raise DataError("what it sent is not the file") from None
    raw.unlink()
    whole = part / file.name
    with open(whole, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(whole, target)


def _progress_bar() -> bool:
    """A bar for a person: at a terminal or in a notebook, where tqdm is installed."""
    try:
        import tqdm  # noqa: F401
    except ModuleNotFoundError:
        return False
    return sys.stderr.isatty() or "ipykernel" in sys.modules


def fault(path: Path, file: File) -> str | None:
    """What is wrong with the file at `path`, or None."""
    try:
        read(path, file)
    except DataError as error:
        return str(error)
    return None
