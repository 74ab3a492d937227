"""The figures' common look."""

from collections.abc import Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import offset_copy

from panorama._arrays import to_numpy

# After Okabe and Ito's palette, which people with any colour vision can tell apart
# (https://jfly.uni-koeln.de/color/). Its yellow is left out and its orange and sky blue are
# darkened, so that thin lines can be seen on a light ground.
COLORS = ("#0072B2", "#D55E00", "#008060", "#B4578F", "#A87000", "#4D4D4D", "#3FA0D8")
INK = "#222222"
PAPER = "#FCFCFC"

STYLE = {
    "figure.figsize": (6.4, 3.8),
    "figure.dpi": 100,
    "figure.facecolor": PAPER,  # opaque: a dark page would swallow the axes' labels
    "figure.constrained_layout.use": True,
    "savefig.facecolor": PAPER,
    "savefig.dpi": "figure",
    "axes.facecolor": PAPER,
    "axes.edgecolor": "#808080",
    "axes.labelcolor": INK,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.prop_cycle": cycler(color=COLORS),
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.8,
    "lines.linewidth": 2.0,
    "lines.solid_capstyle": "round",
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "font.size": 11,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 11,
    "image.cmap": "viridis",
    "image.interpolation": "nearest",
}


def use_style() -> None:
    """Make the house style matplotlib's default, for the figures made from here on."""
    mpl.rcParams.update(STYLE)


def image_grid(
    images,
    titles: Sequence[str] | None = None,
    columns: int = 8,
    cmap: str = "gray",
    vmin: float | None = None,
    vmax: float | None = None,
    width: float = 6.4,
    title_colors: Sequence[str] | None = None,
) -> Figure:
    """Images in rows of `columns`, each under its title.

    `images` has shape (N, H, W) for one channel, or (N, H, W, 3) for colours as uint8 from 0 to
    255 or floats from 0 to 1. All images share one scale: `vmin` is black and `vmax` white, by
    default the smallest and the largest value of all. `width` is in inches.

    End the notebook's line with a semicolon, or the figure shows twice. Raises ValueError for
    other shapes, and for titles or colours that are not one an image.
    """
    images = to_numpy(images)
    if images.ndim == 4 and images.shape[-1] == 1:
        images = images[..., 0]
    if len(images) == 0 or (images.ndim != 3 and (images.ndim != 4 or images.shape[-1] != 3)):
        raise ValueError(
            f"image_grid needs images of shape (N, H, W) or (N, H, W, 3), not {images.shape}"
            + ("; move the channels last" if images.ndim == 4 and images.shape[1] in (1, 3) else "")
        )
    for name, values in (("titles", titles), ("title_colors", title_colors)):
        if values is not None and len(values) != len(images):
            raise ValueError(f"{len(images)} images, but {len(values)} {name}")
    if images.ndim == 3:
        vmin = images.min() if vmin is None else vmin
        vmax = images.max() if vmax is None else vmax

    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    lines = max(title.count("\n") + 1 for title in titles) if titles is not None else 0
    # All in inches: an exact layout, where an automatic one would leave the images unequal.
    gap, head = 0.04, 0.17 * lines
    cell_width = (width - (columns + 1) * gap) / columns
    cell_height = cell_width * images.shape[1] / images.shape[2]
    step = cell_height + head + gap
    height = rows * step + gap
    figure = plt.figure(figsize=(width, height), layout="none")
    for i, image in enumerate(images):
        left = gap + (i % columns) * (cell_width + gap)
        bottom = height - (i // columns + 1) * step
        ax = figure.add_axes(
            (left / width, bottom / height, cell_width / width, cell_height / height)
        )
        ax.set_axis_off()
        ax.imshow(image, cmap=cmap, vmin=vmin, vmax=vmax)
        if titles is not None:
            color = title_colors[i] if title_colors is not None else INK
            ax.set_title(
                titles[i], fontsize=10, fontweight="normal", loc="center", color=color, pad=2
            )
    return figure


def learning_curves(
    curves: dict[str, Sequence[float]],
    ylabel: str,
    xlabel: str = "epoch",
    ax: Axes | None = None,
) -> Axes:
    """One line for each entry of `curves`, labelled at its end; the first value is at x = 1.

    Curves may differ in length. Raises ValueError for an empty one.
    """
    if not curves or any(len(values) == 0 for values in curves.values()):
        raise ValueError("learning_curves needs at least one value in every curve")
    if ax is None:
        _, ax = plt.subplots()
    for name, values in curves.items():
        steps = np.arange(1, len(values) + 1)
        ax.plot(steps, to_numpy(values), label=name, marker="o" if len(values) == 1 else None)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.xaxis.get_major_locator().set_params(integer=True)
    label_lines(ax)
    return ax


def label_lines(ax: Axes) -> None:
    """Write each labelled line's name at its right end, in its colour, instead of a legend.

    Names that would overlap are moved apart, and a thin leader ties each moved name to its line.
    Call it when the axes are otherwise finished: it places the names by the present limits.
    """
    ax.figure.draw_without_rendering()  # settles limits and layout
    ends = []
    for line in ax.get_lines():
        x, y = (np.asarray(v, dtype=float) for v in line.get_data())
        finite = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
        if not line.get_label().startswith("_") and len(finite):
            last = finite[np.argmax(x[finite])]
            ends.append((line, (x[last], y[last])))
    if not ends:
        return
    points = 72 / ax.figure.dpi
    at = ax.transData.transform([end for _, end in ends]) * points
    size = mpl.rcParams["font.size"]
    low, high = ax.bbox.y0 * points, ax.bbox.y1 * points
    heights = _spread(at[:, 1], 1.3 * size, low, high)
    column = max(x for _, (x, _) in ends)
    early = at[:, 0].max() - at[:, 0] > size
    moved = early | (np.abs(heights - at[:, 1]) > 0.25 * size)
    for i, (line, (x, y)) in enumerate(ends):
        beside = offset_copy(
            ax.transData,
            ax.figure,
            x=16 if moved.any() else 6,
            y=heights[i] - at[i, 1],
            units="points",
        )
        leader = {
            "arrowstyle": "-",
            "color": line.get_color(),
            "linewidth": 0.8,
            "linestyle": ":" if early[i] else "-",
            "relpos": (0, 0.5),
            "shrinkA": 1,
            "shrinkB": 3,
        }
        ax.annotate(
            line.get_label(),
            xy=(x, y),
            xytext=(column, y),
            textcoords=beside,
            color=0.75 * np.array(mpl.colors.to_rgb(line.get_color())),  # small text: darker
            fontsize=size,
            va="center",
            annotation_clip=False,
            arrowprops=leader if moved.any() else None,
        )


def _spread(wanted: np.ndarray, gap: float, low: float, high: float) -> np.ndarray:
    """The positions from `low` to `high` nearest to `wanted`, in its order and `gap` apart.

    Where they do not all fit, they stand out below `low`.
    """
    order = np.argsort(wanted, kind="stable")
    # With i * gap taken off, "at least gap apart" becomes "does not fall": merge what falls.
    blocks: list[list[float]] = []
    for i, value in enumerate(wanted[order]):
        blocks.append([value - i * gap])
        while len(blocks) > 1 and np.mean(blocks[-2]) > np.mean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    level = np.concatenate([np.full(len(block), np.mean(block)) for block in blocks])
    level = np.clip(level, low, high - (len(wanted) - 1) * gap)
    placed = np.empty(len(wanted))
    placed[order] = level + np.arange(len(wanted)) * gap
    return placed
