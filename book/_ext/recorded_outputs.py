"""Show recorded outputs instead of executing: seed Jupyter Book's cache from `notebooks/`.

`panorama record` runs a chapter and keeps its outputs in `notebooks/**/*.ipynb`. Before the build
reads its first page, this extension puts each of those notebooks into the jupyter-cache that
MyST-NB is about to ask. MyST-NB looks a page up by a hash of its code, tags and kernel: a page
whose code was not edited since takes its outputs from the cache, and any other page is executed.
So a page never shows the outputs of other code.

A notebook is put into the cache only when it is complete: it says that it was recorded, and the
execution counts of its cells are consecutive. A cell that was edited, moved or removed since
breaks them. Cells tagged `gpu` may have outputs or not.

For other extensions: `record_of(app, docname)` is the provenance that `panorama record` wrote,
and `is_current(app, docname)` tells whether the page shows recorded outputs.
"""

import hashlib
from itertools import pairwise
from pathlib import Path

import nbformat
from jupyter_cache.base import CacheBundleIn
from jupyter_cache.cache.main import JupyterCacheBase
from sphinx.util import logging

logger = logging.getLogger(__name__)

# Written by the tools that execute a notebook, and not part of the .md.
EXECUTION_METADATA = ("execution", "papermill", "collapsed", "scrolled")


def cache_of(app):
    """The jupyter-cache that MyST-NB will use for this build."""
    path = app.config.nb_execution_cache_path or Path(app.outdir).parent / ".jupyter_cache"
    return JupyterCacheBase(path)


def cleaned(notebook):
    """The notebook without what execution adds to the cells' metadata, which would be hashed."""
    for cell in notebook.cells:
        for key in EXECUTION_METADATA:
            cell.metadata.pop(key, None)
        if not cell.metadata.get("tags", True):
            del cell.metadata["tags"]
    return notebook


def is_complete(notebook):
    """True if the outputs are those of one run of the cells as they stand, `gpu` cells aside."""
    counts = [
        cell.execution_count
        for cell in notebook.cells
        if cell.cell_type == "code"
        and cell.source.strip()
        and "gpu" not in cell.metadata.get("tags", [])
    ]
    return None not in counts and all(b - a == 1 for a, b in pairwise(counts))


def seed_cache(app, config):
    """Put every complete recorded notebook into the cache (event `config-inited`)."""
    app.recorded_pages = {}
    folder = (Path(app.srcdir) / config.recorded_notebooks).resolve()
    cache = cache_of(app)
    for path in sorted(folder.rglob("*.ipynb")):
        docname = path.relative_to(folder).with_suffix("").as_posix()
        if ".ipynb_checkpoints" in docname:
            continue
        content = path.read_bytes()
        try:
            notebook = cleaned(nbformat.reads(content.decode(), as_version=4))
        except (ValueError, nbformat.ValidationError) as error:
            logger.warning(f"{path} is not a readable notebook ({error}): record it again.")
            continue
        record = notebook.metadata.get("recorded", {})
        page = {"path": path, "record": record, "key": None}
        page["stamp"] = hashlib.sha256(content).hexdigest()
        if record.get("default") and is_complete(notebook):
            page["key"] = cache.create_hashed_notebook(notebook)[1]
            data = {"execution_seconds": record["default"].get("seconds")}
            bundle = CacheBundleIn(notebook, f"{docname}.md", data=data)
            cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
        app.recorded_pages[docname] = page
    seeded = sum(page["key"] is not None for page in app.recorded_pages.values())
    logger.info(f"Recorded outputs: {seeded} notebook(s) taken from {folder}")


def pages_recorded_again(app, env, added, changed, removed):
    """Pages whose notebook changed since the last build are read again (`env-get-outdated`)."""
    now = {docname: page["stamp"] for docname, page in app.recorded_pages.items()}
    before = getattr(env, "recorded_stamps", {})
    env.recorded_stamps = now
    return [
        docname
        for docname in now.keys() | before.keys()
        if now.get(docname) != before.get(docname) and docname in env.found_docs
    ]


def record_of(app, docname):
    """`recorded` metadata of the page's notebook: {"default": {…}, "full": {…}}, or {}."""
    return app.recorded_pages.get(docname, {}).get("record", {})


def is_current(app, docname):
    """True if the page's code is that of its recorded notebook, whose outputs it then shows."""
    key = app.recorded_pages.get(docname, {}).get("key")
    built = Path(app.outdir).parent / "jupyter_execute" / f"{docname}.ipynb"
    if key is None or not built.exists():
        return False
    notebook = nbformat.read(built, as_version=4)
    return cache_of(app).create_hashed_notebook(notebook)[1] == key


def setup(app):
    app.add_config_value("recorded_notebooks", "../notebooks", "env")
    app.connect("config-inited", seed_cache, priority=900)
    app.connect("env-get-outdated", pages_recorded_again)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
