"""Serve MathJax from the site itself, so that a page needs no other host to be read.

`npm ci` (run by the Makefile, locked in package-lock.json) puts MathJax into node_modules/. This
extension copies what a page needs of it (the TeX to HTML component, its fonts and the TeX
extensions that it loads on demand) to `_static/mathjax` of the built site. Without node_modules/
the pages load MathJax from Sphinx's default CDN, and one line of the build's log says so.
"""

import shutil
from pathlib import Path

from sphinx.util import logging

logger = logging.getLogger(__name__)

PARTS = (
    "es5/tex-chtml.js",
    "es5/output/chtml/fonts/woff-v2",
    "es5/input/tex/extensions",
    "LICENSE",
)
FALLBACK = "MathJax was not found in {}: mathematics will be loaded from a CDN. Run `npm ci`."


def package_of(app):
    return (Path(app.srcdir) / app.config.local_mathjax_package).resolve()


def use_local_copy(app, config):
    """Choose between the local copy and the CDN (event `config-inited`)."""
    if (package_of(app) / PARTS[0]).is_file():
        config.mathjax_path = "mathjax/es5/tex-chtml.js"
    else:
        logger.info(FALLBACK.format(config.local_mathjax_package))


def copy_package(app, error):
    """Copy the parts into the built site, once (event `build-finished`)."""
    source = package_of(app)
    if error or app.builder.format != "html" or not (source / PARTS[0]).is_file():
        return
    target = Path(app.outdir) / "_static" / "mathjax"
    for part in PARTS:
        (target / part).parent.mkdir(parents=True, exist_ok=True)
        if (source / part).is_dir():
            shutil.copytree(source / part, target / part, dirs_exist_ok=True)
        else:
            shutil.copy2(source / part, target / part)


def setup(app):
    app.add_config_value("local_mathjax_package", "../node_modules/mathjax", "html")
    app.connect("config-inited", use_local_copy)
    app.connect("build-finished", copy_package)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
