"""Values that the page's text quotes."""

# MyST-NB's own conventions (myst_nb.ext.glue), so that a reader's notebook needs no MyST-NB.
MIME_PREFIX = "application/papermill.record/"


def glue(name: str, value, format_spec: str = "") -> None:
    """Record `value` under `name`, for MyST-NB's {glue} role to put into the text.

    `format_spec` is that of `format`: glue("accuracy", 0.8912, ".3f") makes {glue}`accuracy` read
    0.891. Without one, objects that have a picture (figures) keep it. Nothing is shown in the
    notebook. Outside IPython this does nothing.
    """
    try:
        from IPython import get_ipython
    except ModuleNotFoundError:
        return
    shell = get_ipython()
    if shell is None:
        return
    bundle, metadata = record(name, value, format_spec, shell.display_formatter.format)
    shell.display_pub.publish(data=bundle, metadata=metadata)


def record(name: str, value, format_spec: str, formats) -> tuple[dict, dict]:
    """The MIME bundle and metadata of one glued value; `formats` is IPython's `format(value)`."""
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()  # a 0-d array or tensor, a numpy scalar
    elif hasattr(value, "numpy") and getattr(value, "ndim", None) == 0:
        value = value.numpy().item()  # TensorFlow
    if format_spec or isinstance(value, str | int | float | complex):
        bundle, metadata = {"text/plain": format(value, format_spec)}, {}
    else:
        bundle, metadata = formats(value)
    metadata = metadata | {"scrapbook": {"name": name, "mime_prefix": MIME_PREFIX}}
    return {MIME_PREFIX + mime: data for mime, data in bundle.items()}, metadata
