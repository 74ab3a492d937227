"""The wheel in a bare environment: numpy and matplotlib are all that `import panorama` needs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NO_NETWORK = ("dns error", "error sending request", "Failed to fetch", "timed out")


def uv(*arguments):
    command = Path(sys.executable).with_name("uv")
    if not command.exists():
        command = shutil.which("uv") or pytest.skip("uv is not installed")
    result = subprocess.run(
        [command, *map(str, arguments)], capture_output=True, text=True, check=False, cwd=ROOT
    )
    if result.returncode and any(sign in result.stderr for sign in NO_NETWORK):
        pytest.skip(f"no package registry can be reached: {result.stderr.splitlines()[0]}")
    assert result.returncode == 0, result.stderr
    return result


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """Runs code in an environment that has the wheel and what it requires, and nothing else."""
    folder = tmp_path_factory.mktemp("light")
    uv("build", "--wheel", "--out-dir", folder, ROOT)
    (wheel,) = folder.glob("dl_panorama-*.whl")
    uv("venv", "--python", sys.executable, folder / "venv")
    interpreter = folder / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    uv("pip", "install", "--python", interpreter, wheel)

    def run(code):
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PANO"))}
        return subprocess.run(
            [interpreter, "-c", code],
            capture_output=True,
            text=True,
            check=False,
            cwd=folder,
            env=environment | {"MPLBACKEND": "agg", "XDG_CACHE_HOME": str(folder / "cache")},
        )

    return run


def test_helpers_and_bundled_data_work_with_numpy_and_matplotlib_only(bare):
    result = bare(
        "import importlib.util, panorama\n"
        "for name in ('torch', 'tensorflow', 'pooch', 'typer', 'pydantic', 'IPython', 'yaml'):\n"
        "    assert importlib.util.find_spec(name) is None, name\n"
        "panorama.use_style(); panorama.seed_everything(0)\n"
        "data = panorama.data.load('fashion-mnist', train=1_000, test=100)\n"
        "for name in ('twemoji', 'web-rv1909-en-es', 'vader-sentiment'):\n"
        "    panorama.data.load(name)\n"
        "panorama.image_grid(data.x_train[:8]).savefig('grid.png')\n"
        "panorama.learning_curves({'a': [1, 2], 'b': [2, 3]}, 'loss').figure.savefig('c.png')\n"
        "panorama.compare(data.x_test, data.x_test, what='images')\n"
        "panorama.glue('n', 1)\n"
        "assert (panorama.example('serving') / 'service.py').is_file()\n"
        "print(data.x_train.shape)"
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "(1000, 28, 28)"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            "panorama.device()",
            "ImportError: panorama.device() needs PyTorch, which is not installed: "
            "pip install torch torchvision",
        ),
        (
            "panorama.data.load('fashion-mnist', train=60_000)",
            "panorama.data.registry.DataError: train-images-idx3-ubyte has to be downloaded, and "
            "that needs pooch: pip install 'dl-panorama[data]'. What needs no network: "
            "train=10_000, test=2_000 or less.",
        ),
    ],
)
def test_what_needs_more_says_what_to_install(bare, call, message):
    if "load" in call and Path("/usr/share/datasets/fashion-mnist").exists():
        pytest.skip("this machine has the full set, so nothing has to be downloaded")
    result = bare(f"import panorama; {call}")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith(message)


def test_the_command_says_what_to_install(bare):
    result = bare("import panorama.cli")
    assert result.returncode == 1
    assert result.stderr == (
        "The panorama command needs more than the helpers do: pip install 'dl-panorama[tools]'\n"
    )
