"""The yardstick of the generative part: distances, precision and recall, memorisation, features."""

import numpy as np
import pytest

import panorama
from panorama import yardstick


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def clothes():
    return panorama.data.load("fashion-mnist")


# Fréchet distance


def test_the_frechet_distance_of_one_dimension_is_that_of_the_formula(rng):
    a, b = rng.normal(1, 2, (500, 1)), rng.normal(-1, 3, (400, 1))
    expected = (a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2
    assert yardstick.frechet_distance(a, b) == pytest.approx(expected)


def test_the_frechet_distance_is_symmetric_zero_for_equal_sets_and_blind_to_rotation(rng):
    a, b = rng.normal(size=(60, 8)), rng.normal(size=(50, 8)) @ rng.normal(size=(8, 8)) + 1
    rotation, _ = np.linalg.qr(rng.normal(size=(8, 8)))
    distance = yardstick.frechet_distance(a, b)
    assert distance > 1
    assert yardstick.frechet_distance(b, a) == pytest.approx(distance)
    assert yardstick.frechet_distance(a @ rotation, b @ rotation) == pytest.approx(distance)
    assert yardstick.frechet_distance(a, a) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("rows", [40, 400], ids=["fewer rows than features", "more"])
def test_the_frechet_distance_is_that_of_torchmetrics(rng, rows):
    torch = pytest.importorskip("torch")
    fid = pytest.importorskip("torchmetrics.image.fid")

    class Rows(torch.nn.Module):
        """The features come ready: (N, 64) in, (N, 64) out."""

        num_features = 64

        def forward(self, x):
            return x

    a = rng.normal(size=(rows, 64)) @ rng.normal(size=(64, 64))
    b = a[: rows // 2] + rng.normal(size=(rows // 2, 64))
    reference = fid.FrechetInceptionDistance(Rows()).set_dtype(torch.float64)
    reference.update(torch.tensor(a), real=True)
    reference.update(torch.tensor(b), real=False)
    expected = reference.compute().item()
    assert yardstick.frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


def test_the_estimate_has_no_bias_in_the_number_of_rows_and_a_fitting_error(rng):
    def pairs(difference, classes):
        for _ in range(30):
            labels = np.tile(np.arange(10), 20) if classes else rng.integers(0, 10, (2, 200))
            a, b = (
                rng.normal(size=(200, 4)) + 2 * np.eye(10)[:, :4][labels if classes else labels[i]]
                for i in range(2)
            )
            a[:, 3] += difference
            yield a, b, (labels, labels) if classes else (None, None)

    for difference, classes in ((0, False), (0, True), (3, False), (3, True)):
        plain, estimates, errors = [], [], []
        for a, b, labels in pairs(difference, classes):
            plain.append(yardstick.frechet_distance(a, b))
            value, error = yardstick.frechet_estimate(a, b, classes=labels)
            estimates.append(value)
            errors.append(error)
        true = difference**2
        spread = np.std(estimates)
        assert abs(np.mean(estimates) - true) < 4 * spread / np.sqrt(30)
        assert 0.5 * spread < np.mean(errors) < 4 * spread
        if not difference:
            assert np.mean(plain) > 0.02


# Precision, recall, memorisation


def test_precision_falls_with_outliers_and_recall_with_missing_variety(rng):
    real = rng.normal(size=(400, 2))
    assert min(yardstick.precision_recall(real, rng.normal(size=(400, 2)))) > 0.9
    precision, recall = yardstick.precision_recall(real, rng.normal(size=(400, 2)) * 5)
    assert precision < 0.6
    assert recall > 0.9
    precision, recall = yardstick.precision_recall(real, rng.normal(size=(400, 2)) * 0.1)
    assert precision > 0.9
    assert recall < 0.3
    assert yardstick.precision_recall(real, real + 100) == (0, 0)


def test_nearest_gives_row_and_distance_for_any_shape_of_row():
    references = np.zeros((3, 2, 2))
    references[1] = 5
    index, distance = yardstick.nearest(np.full((1, 2, 2), 4.0), references)
    assert index.tolist() == [1]
    assert distance == pytest.approx([2.0])


def test_memorisation_is_zero_for_fresh_rows_and_one_for_copies(rng):
    training, held_out, fresh = (rng.normal(size=(n, 5)) for n in (900, 300, 600))
    score, error = yardstick.memorisation(fresh, training, held_out)
    assert abs(score) < 4 * error
    copies = training[rng.integers(0, 900, 600)] + 0.01 * rng.normal(size=(600, 5))
    assert yardstick.memorisation(copies, training, held_out)[0] > 0.95
    half = np.concatenate([copies[:300], fresh[:300]])
    assert yardstick.memorisation(half, training, held_out)[0] == pytest.approx(0.5, abs=0.2)
    assert yardstick.memorisation(held_out, training, held_out)[0] < -2


# Features


def test_the_classifier_knows_clothes_it_was_not_trained_on(clothes):
    probabilities = yardstick.probabilities(clothes.x_test)
    assert probabilities.shape == (2000, 10)
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(2000), abs=1e-5)
    assert (probabilities.argmax(axis=1) == clothes.y_test).mean() > 0.88


def test_features_are_the_same_for_bytes_and_floats_and_for_each_image_alone(clothes):
    images = clothes.x_test[:3]
    rows = yardstick.features(images)
    assert rows.shape == (3, 64)
    assert rows.dtype == np.float32
    assert yardstick.features(images / 255) == pytest.approx(rows, abs=1e-5)
    assert yardstick.features(images[2:]) == pytest.approx(rows[2:], abs=1e-5)


def test_features_of_another_network_need_its_weights_only(clothes):
    halved = {name: value / 2 for name, value in yardstick._weights().items()}
    rows = yardstick.features(clothes.x_test[:3])
    assert yardstick.features(clothes.x_test[:3], yardstick._weights()) == pytest.approx(rows)
    assert np.abs(yardstick.features(clothes.x_test[:3], halved) - rows).max() > 0.1


def test_the_numpy_classifier_computes_what_pytorch_computes(clothes):
    torch = pytest.importorskip("torch")
    w = {name: torch.from_numpy(value) for name, value in yardstick._weights().items()}
    x = torch.from_numpy(clothes.x_test[:8, None] / 255).float()
    for layer in range(1, 5):
        kernel = w[f"kernel_{layer}"].permute(3, 2, 0, 1)
        x = torch.conv2d(x, kernel, w[f"bias_{layer}"], padding=1).relu()
        if layer <= 2:
            x = torch.max_pool2d(x, 2)
    rows = x.mean((2, 3)) @ w["kernel_5"] + w["bias_5"]
    assert yardstick.features(clothes.x_test[:8]) == pytest.approx(rows.numpy(), abs=1e-4)


# Bad input


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 1, 28, 28), np.uint8), "Leave out the channel axis"),
        (np.zeros((2, 16, 16), np.uint8), "resize"),
        (np.zeros((0, 28, 28), np.uint8), "needed is"),
        (np.zeros((2, 28, 28), int), "needed is uint8"),
        (np.full((2, 28, 28), -1.0), "0 to 1"),
        (np.full((2, 28, 28), np.nan), "0 to 1"),
    ],
)
def test_images_that_do_not_fit_are_refused_with_what_to_do(images, message):
    with pytest.raises(ValueError, match=message):
        yardstick.features(images)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: yardstick.frechet_distance(np.ones((1, 3)), np.ones((5, 3))), "at least 2 rows"),
        (lambda: yardstick.frechet_distance(np.ones((5, 3)), np.ones((5, 2))), "rows of 3 and of"),
        (lambda: yardstick.frechet_distance(np.ones((5, 3)), np.full((5, 3), np.inf)), "finite"),
        (lambda: yardstick.frechet_estimate(np.ones((9, 3)), np.ones((99, 3))), "fewer folds"),
        (
            lambda: yardstick.frechet_estimate(
                np.ones((99, 3)), np.ones((99, 3)), classes=(np.ones(5), None)
            ),
            "one a row",
        ),
        (lambda: yardstick.precision_recall(np.ones((3, 2)), np.ones((9, 2))), "neighbours=3"),
        (lambda: yardstick.nearest(np.ones(4), np.ones((3, 4))), "one an image"),
    ],
)
def test_rows_that_do_not_fit_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
