"""The helpers that chapters import: seeds, devices, style, figures, comparison, tables, glue."""

import importlib.util
import os
import subprocess
import sys
import tomllib
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

import panorama
from panorama import _environment, glueing, plotting

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def house_style():
    with mpl.rc_context():
        plt.switch_backend("agg")
        panorama.use_style()
        yield
        plt.close("all")


def python(code: str, **environment: str) -> subprocess.CompletedProcess:
    """Run `code` in an interpreter of its own; a check in it that fails makes this fail."""
    clean = {name: v for name, v in os.environ.items() if name not in _environment.SWITCHES}
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=clean | {"MPLBACKEND": "agg"} | environment,
        timeout=120,
        check=False,
    )


needs_triton = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("tensorflow", "torch", "triton")),
    reason="needs TensorFlow, and PyTorch with triton",
)
needs_both = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None or importlib.util.find_spec("torch") is None,
    reason="needs PyTorch and TensorFlow",
)


def test_the_version_is_stated_once_only():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert panorama.__version__ == project["version"] == version("dl-panorama")


def test_the_import_is_light():
    result = python(
        "import sys, panorama\n"
        "heavy = {'torch', 'tensorflow', 'keras', 'IPython', 'pooch', 'typer', 'pydantic'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    assert result.returncode == 0, result.stderr


# Environment


def test_switches_are_set_and_the_readers_own_choice_stays():
    code = (
        "import os, panorama\n"
        "print(os.environ['YOLO_OFFLINE'], os.environ['KERAS_BACKEND'], os.environ['DO_NOT_TRACK'])"
    )
    assert python(code).stdout.split() == ["true", "tensorflow", "1"]
    assert python(code, KERAS_BACKEND="torch").stdout.split() == ["true", "torch", "1"]


@needs_triton
def test_after_panorama_the_order_of_the_frameworks_does_not_matter():
    # The other order is that of BOTH_FRAMEWORKS. It is the optimizer's step that used to crash.
    result = python(
        "import panorama\n"
        "import tensorflow as tf\n"
        "assert float(tf.reduce_sum(tf.ones(3))) == 3\n"  # TensorFlow alone is fine
        "import torch\n" + OPTIMIZER_STEP
    )
    assert result.returncode == 0, result.stderr


OPTIMIZER_STEP = """
parameter = torch.nn.Parameter(torch.ones(3))
parameter.grad = torch.ones(3)
torch.optim.AdamW([parameter]).step()
"""
# The guard looks at names only, so an empty module can stand for a library that takes seconds.
ALREADY_LOADED = """
import sys, types
for name in {names}:
    sys.modules[name] = types.ModuleType(name)
"""


@needs_triton
def test_torch_after_a_bare_tensorflow_is_a_clear_error_and_not_a_crash():
    result = python(
        ALREADY_LOADED.format(names=["tensorflow"]) + "import panorama, importlib.util\n"
        "assert importlib.util.find_spec('torch') is not None\n"  # libraries may ask
        "for statement in ('import torch', 'from torch import nn', 'import torchvision'):\n"
        "    try:\n"
        "        exec(statement)\n"
        "    except ImportError as error:\n"
        "        print(error)\n"
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [_environment.TORCH_TOO_LATE] * 3


@needs_triton
def test_panorama_after_both_frameworks_is_a_clear_error():
    result = python(ALREADY_LOADED.format(names=["torch", "tensorflow"]) + "import panorama")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == f"ImportError: {_environment.IMPORT_PANORAMA_FIRST}"


BOTH_FRAMEWORKS = """
import panorama
import torch
import tensorflow as tf
import keras
import numpy as np

# Seeds: the same numbers again, in every library.
def draw():
    return [
        np.random.rand(3), torch.rand(3).numpy(), tf.random.uniform([3]).numpy(),
        keras.layers.Dense(2)(np.ones((1, 4), "float32")).numpy(),
    ]
panorama.seed_everything(7); first = draw()
panorama.seed_everything(7); second = draw()
panorama.seed_everything(8); third = draw()
for a, b, c in zip(first, second, third):
    assert np.array_equal(a, b) and not np.array_equal(a, c)

# Comparison across frameworks, gradients and half precision included.
x = np.linspace(-1, 1, 7, dtype="float32")
t = torch.tensor(x, requires_grad=True)
assert panorama.compare(t, tf.constant(x), what="torch and TensorFlow") == 0
assert panorama.compare(keras.Variable(x), t, what="Keras and torch") == 0
assert panorama.compare(tf.Variable(x), x, what="a TensorFlow variable") == 0
panorama.compare(t.bfloat16(), x, rtol=1e-2, what="bfloat16")
try:
    panorama.compare(torch.tensor(x) * 1.01, tf.constant(x), what="scaled")
except AssertionError as error:
    assert "scaled: largest relative error 1.0e-02 is over the limit 1e-05" in str(error), error
else:
    raise SystemExit("a difference passed")

# The same small network counts the same in both, without running statistics.
ours = torch.nn.Sequential(
    torch.nn.Conv2d(1, 6, 5), torch.nn.BatchNorm2d(6), torch.nn.Flatten(), torch.nn.Linear(3456, 10)
)
theirs = keras.Sequential([
    keras.Input((28, 28, 1)), keras.layers.Conv2D(6, 5, name="conv"),
    keras.layers.BatchNormalization(name="norm"), keras.layers.Flatten(),
    keras.layers.Dropout(0.5), keras.layers.Dense(10, name="dense"),
])
print("---")
assert panorama.parameter_table(ours) == 156 + 12 + 34570
print("---")
theirs.get_layer("conv").trainable = False  # frozen parameters count
assert panorama.parameter_table(theirs) == 156 + 12 + 34570
print("---")
try:
    panorama.parameter_table(keras.Sequential([keras.layers.Dense(3)], name="unbuilt"))
except ValueError as error:
    assert "unbuilt is not built" in str(error)
else:
    raise SystemExit("a model without shapes passed")

from panorama.glueing import record
assert list(record("a", tf.constant(0.5), ".2f", None)[0].values()) == ["0.50"]
assert list(record("a", torch.tensor(3), ",", None)[0].values()) == ["3"]
"""


@needs_both
def test_torch_then_tensorflow_work_together_with_every_helper():
    result = python(BOTH_FRAMEWORKS + OPTIMIZER_STEP)
    assert result.returncode == 0, result.stderr + result.stdout
    compared, torch_table, keras_table, _ = result.stdout.split("---\n")
    assert "torch and TensorFlow: largest relative error 0.0e+00 (limit 1e-05)" in compared
    assert torch_table.splitlines() == [
        "layer  shapes                   parameters",
        "0      weight 6×1×5×5  bias 6          156",
        "1      weight 6  bias 6                 12",
        "3      weight 10×3456  bias 10      34,570",
        "total                               34,738",
    ]
    assert "conv   kernel 5×5×1×6  bias 6          156" in keras_table.splitlines()
    assert "norm   gamma 6  beta 6                  12" in keras_table.splitlines()


# Seeds and devices


def test_seed_repeats_numpy_and_random():
    panorama.seed_everything(0)
    first = np.random.rand()
    panorama.seed_everything(0)
    assert np.random.rand() == first


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_impossible_seed(seed):
    with pytest.raises(ValueError, match="from 0 to 4294967295"):
        panorama.seed_everything(seed)


@pytest.mark.parametrize(
    ("cuda", "mps", "chosen"),
    [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_fastest_device_is_chosen(monkeypatch, cuda, mps, chosen):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert panorama.device() == torch.device(chosen)


# compare


def test_compare_prints_one_line_and_returns_the_error(capsys):
    reference = np.array([1000.0, 1e-9])
    error = panorama.compare(reference + np.array([0, 1e-4]), reference, what="logits")
    # In units of the largest reference value: 1e-4 beside 1e-9 is still 1e-7 of 1000.
    assert error == pytest.approx(1e-7)
    assert capsys.readouterr().out == "logits: largest relative error 1.0e-07 (limit 1e-05)\n"


def test_compare_names_the_worst_index_and_both_values():
    reference = np.ones((2, 3))
    ours = reference.copy()
    ours[0, 1] = 1.1
    ours[1, 2] = 1.25
    with pytest.raises(
        AssertionError,
        match=r"kernel: largest relative error 2\.5e-01 is over the limit 1e-05; "
        r"worst at \[1, 2\]: ours 1\.25, reference 1$",
    ):
        panorama.compare(ours, reference, what="kernel")


def test_compare_does_not_broadcast():
    with pytest.raises(AssertionError, match=r"our shape is \(3,\), the reference's is \(3, 1\)"):
        panorama.compare(np.ones(3), np.ones((3, 1)))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_compare_refuses_values_that_are_not_finite_even_when_both_have_them(value):
    values = np.array([[1.0, 2.0], [value, 4.0]])
    with pytest.raises(AssertionError, match=r"ours has 1 of 4 values .* the first at \[1, 0\]"):
        panorama.compare(values, values)
    with pytest.raises(AssertionError, match="the reference has 1 of 4"):
        panorama.compare(np.ones((2, 2)), values)


def test_compare_refuses_nothing():
    with pytest.raises(AssertionError, match="nothing to compare"):
        panorama.compare(np.ones((0, 3)), np.ones((0, 3)))


def test_compare_with_a_zero_reference_is_absolute():
    assert panorama.compare(np.full(2, 1e-6), np.zeros(2)) == 1e-6
    with pytest.raises(AssertionError, match=r"1\.0e-03 is over"):
        panorama.compare(np.full(2, 1e-3), np.zeros(2))


def test_compare_sees_unsigned_differences():
    with pytest.raises(AssertionError, match="ours 1, reference 2"):
        panorama.compare(np.uint8([1]), np.uint8([2]))


def test_compare_a_single_number():
    assert panorama.compare(2.0, 2.0) == 0
    with pytest.raises(AssertionError, match="worst at the only value: ours 3, reference 2"):
        panorama.compare(3.0, 2.0)


# parameter_table


def test_shared_parameters_count_once():
    nn = pytest.importorskip("torch").nn
    tied = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 10, bias=False))
    tied[1].weight = tied[0].weight
    assert panorama.parameter_table(tied) == 40


def test_parameter_table_of_something_else():
    with pytest.raises(TypeError, match="a torch module or a Keras model, not dict"):
        panorama.parameter_table({})


# glue


@pytest.fixture
def displayed():
    """What IPython publishes for a statement: (data, metadata)."""
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output

    shell = InteractiveShell.instance()

    def run(statement, **names):
        shell.push(names)
        with capture_output() as captured:
            shell.run_cell(statement).raise_error()
        (output,) = captured.outputs
        assert captured.stdout == ""
        return output.data, output.metadata

    yield run
    InteractiveShell.clear_instance()


@pytest.mark.parametrize("value", [0.8912, 42, np.arange(3), {"a": 1}])
def test_glue_records_what_myst_nb_would(displayed, value):
    from myst_nb import glue as reference

    ours = displayed("glue('name', value)", glue=panorama.glue, value=value)
    theirs = displayed("glue('name', value, display=False)", glue=reference, value=value)
    assert ours == theirs


def test_glue_formats(displayed):
    data, metadata = displayed("glue('acc', 0.89127, '.1%')", glue=panorama.glue)
    assert data == {"application/papermill.record/text/plain": "89.1%"}
    assert metadata == {
        "scrapbook": {"name": "acc", "mime_prefix": "application/papermill.record/"}
    }


@pytest.mark.parametrize(
    ("value", "format_spec", "text"),
    [
        ("coat", "", "coat"),  # no quotes
        (61706, ",", "61,706"),
        (np.float32(0.5), ".3f", "0.500"),
        (np.array(7), "", "7"),
        (True, "", "True"),
    ],
)
def test_glued_text(value, format_spec, text):
    data, _ = glueing.record("x", value, format_spec, None)
    assert data == {"application/papermill.record/text/plain": text}


def test_glue_outside_a_notebook_is_silent(capsys):
    assert panorama.glue("x", 1) is None
    assert capsys.readouterr().out == ""


# Figures


def luminance(color):
    rgb = np.array(mpl.colors.to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def contrast(a, b):
    bright, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def test_style_is_readable():
    assert contrast(plotting.INK, plotting.PAPER) > 7
    assert len(set(plotting.COLORS)) == len(plotting.COLORS)
    for color in plotting.COLORS:
        label = 0.75 * np.array(mpl.colors.to_rgb(color))
        assert contrast(label, plotting.PAPER) > 4.5, color  # WCAG AA, small text
    assert all(
        size >= 10
        for name, size in plotting.STYLE.items()
        if name.endswith("size") and isinstance(size, int)
    )
    assert mpl.colors.to_rgba(mpl.rcParams["figure.facecolor"])[3] == 1  # opaque on a dark page


def test_style_is_only_applied_when_asked():
    result = python(
        "import matplotlib as mpl, panorama\n"
        "print(mpl.rcParams['axes.grid']); panorama.use_style(); print(mpl.rcParams['axes.grid'])"
    )
    assert result.stdout.split() == ["False", "True"]


@pytest.mark.parametrize("shape", [(10, 28, 28), (10, 28, 28, 1), (10, 20, 30, 3)])
def test_image_grid(shape):
    images = np.random.default_rng(0).random(shape)
    figure = panorama.image_grid(images, titles=[f"no. {i}" for i in range(10)], columns=4)
    assert isinstance(figure, Figure)
    assert figure.get_figwidth() == pytest.approx(6.4)
    assert [ax.get_title() for ax in figure.axes] == [f"no. {i}" for i in range(10)]
    boxes = [ax.get_position() for ax in figure.axes]
    assert len({round(box.y0, 6) for box in boxes}) == 3  # rows
    for box in boxes:  # square pixels, inside the figure
        wide, high = box.width * figure.get_figwidth(), box.height * figure.get_figheight()
        assert wide / high == pytest.approx(shape[2] / shape[1])
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= 1
        assert box.y1 <= 1


def test_image_grid_uses_one_scale_and_the_colours_asked_for():
    images = np.stack([np.zeros((4, 4)), np.full((4, 4), 0.5), np.ones((4, 4))])
    figure = panorama.image_grid(images, titles="abc", title_colors=["k", "r", "k"])
    assert {ax.images[0].get_clim() for ax in figure.axes} == {(0, 1)}
    assert figure.axes[1].title.get_color() == "r"
    figure = panorama.image_grid(images, vmin=-1, vmax=2)
    assert {ax.images[0].get_clim() for ax in figure.axes} == {(-1, 2)}


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((28, 28), r"not \(28, 28\)"),
        ((5, 3, 28, 28), "move the channels last"),
        ((0, 28, 28), r"not \(0, 28, 28\)"),
    ],
)
def test_image_grid_of_other_shapes(shape, message):
    with pytest.raises(ValueError, match=message):
        panorama.image_grid(np.zeros(shape))


def test_image_grid_needs_a_title_for_each():
    with pytest.raises(ValueError, match="3 images, but 2 titles"):
        panorama.image_grid(np.zeros((3, 4, 4)), titles=["a", "b"])


def label_boxes(ax):
    ax.figure.draw_without_rendering()
    # Text's own extent: an annotation's includes its leader.
    return {text.get_text(): Text.get_window_extent(text) for text in ax.texts}


def test_learning_curves_label_every_line_without_overlap_inside_the_figure():
    epochs = np.arange(1, 21)
    curves = {f"recipe {i}": 1 - 0.9 / epochs ** (0.6 + 0.01 * i) for i in range(6)}
    curves["stopped early"] = curves["recipe 0"][:8]
    ax = panorama.learning_curves(curves, ylabel="accuracy")
    ax.set_title("A title that takes room")
    boxes = label_boxes(ax)
    assert set(boxes) == set(curves)
    assert ax.get_legend() is None
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "accuracy")
    assert ax.lines[0].get_xdata()[0] == 1
    ordered = sorted(boxes.values(), key=lambda box: box.y0)
    for lower, upper in pairwise(ordered):
        assert upper.y0 >= lower.y1 - 1
    frame = ax.figure.bbox
    for box in boxes.values():
        assert frame.x0 <= box.x0
        assert box.x1 <= frame.x1 + 1
    names = [name for name, _ in sorted(boxes.items(), key=lambda item: item[1].y0)]
    assert names[-1] == "recipe 5"  # the highest line has the highest label


def test_label_lines_puts_a_free_label_at_its_line_and_skips_unnamed_lines():
    _, ax = plt.subplots()
    ax.plot([0, 1], [0, 0], label="low")
    ax.plot([0, 1], [5, np.nan], label="ends early")
    ax.plot([0, 1], [9, 9], label="high")
    ax.plot([0, 1], [3, 3])
    panorama.label_lines(ax)
    boxes = label_boxes(ax)
    assert set(boxes) == {"low", "ends early", "high"}
    for name, height in (("low", 0), ("high", 9)):
        middle = (boxes[name].y0 + boxes[name].y1) / 2
        assert middle == pytest.approx(ax.transData.transform((1, height))[1], abs=3)


def test_learning_curves_need_values():
    with pytest.raises(ValueError, match="at least one value"):
        panorama.learning_curves({"a": []}, ylabel="loss")


def test_an_example_is_found_and_an_unknown_one_says_which_there_are():
    assert (panorama.example("serving") / "service.py").is_file()
    with pytest.raises(ValueError, match=r"no example named 'cooking': there are .*serving"):
        panorama.example("cooking")
