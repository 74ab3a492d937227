"""Links that open a page as a notebook: Colab, Binder, the recorded .ipynb and the MyST source.

The theme would send Colab to the page's .md, which it cannot open. The links here go to the paired
notebook, `notebooks/PAGE.ipynb` of the repository, and the download is that same recorded file.

In a GitHub workflow the repository comes from GITHUB_REPOSITORY: a fork's buttons open the fork,
and the addresses of its published site (canonical links, previews, the 404 page) are its own.
"""

import os
import shutil
from pathlib import Path
from urllib.parse import quote

BINDER_INTERFACE = {"classic": "tree", "jupyterlab": "lab/tree"}


def use_this_repository(app, config):
    """Take the repository from the workflow that builds the site (event `config-inited`)."""
    name = os.environ.get("GITHUB_REPOSITORY")
    if not name:
        return
    server = os.environ.get("GITHUB_SERVER_URL", "https://github.com").rstrip("/")
    config.html_theme_options["repository_url"] = f"{server}/{name}"
    owner, _, project = name.partition("/")
    prefix = "/" if project.lower() == f"{owner.lower()}.github.io" else f"/{project}/"
    config.html_baseurl = f"https://{owner.lower()}.github.io{prefix}"
    for key, value in {"ogp_site_url": config.html_baseurl, "notfound_urls_prefix": prefix}.items():
        if key in config.values:
            config[key] = value


def links(app, docname):
    """Addresses that open the page as a notebook, by service, in the order they are shown.

    Keys: "colab" and "binder" (absolute, only if the service is configured), and "notebook" and
    "source" (paths from the site's root).
    """
    options = app.config.html_theme_options
    services = options.get("launch_buttons", {})
    repository = "/".join(options["repository_url"].rstrip("/").split("/")[-2:])
    branch = options.get("repository_branch") or "main"
    notebook = quote(f"notebooks/{docname}.ipynb")
    result = {}
    if services.get("colab_url"):
        base = services["colab_url"].rstrip("/")
        result["colab"] = f"{base}/github/{repository}/blob/{branch}/{notebook}"
    if services.get("binderhub_url"):
        base = services["binderhub_url"].rstrip("/")
        interface = BINDER_INTERFACE[services.get("notebook_interface", "classic")]
        result["binder"] = f"{base}/v2/gh/{repository}/{branch}?urlpath={interface}/{notebook}"
    result["notebook"] = f"_sources/{docname}.ipynb"
    result["source"] = f"_sources/{docname}.md"
    return result


def rewrite_header_buttons(app, pagename, templatename, context, doctree):
    """Point the theme's launch buttons, which it made at priority 501, at the notebook."""
    if "kernelspec" not in app.env.metadata.get(pagename, {}):
        return
    targets = links(app, pagename)
    for group in context.get("header_buttons", []):
        if group.get("label") != "launch-buttons":
            continue
        for button in group["buttons"]:
            button["url"] = targets.get(button["text"].lower(), button["url"])
    recorded = (Path(app.srcdir) / app.config.recorded_notebooks / f"{pagename}.ipynb").resolve()
    if recorded.exists():
        download = Path(app.outdir) / targets["notebook"]
        download.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(recorded, download)


def disconnect_thebe(app, config):
    """Take Thebe out, which Jupyter Book always loads (event `config-inited`).

    Live code is off in this book. Thebe would add its configuration to every page all the same, in
    two copies, and the second is an error in the browser's console.
    """
    if config.html_theme_options.get("launch_buttons", {}).get("thebe"):
        return
    for listeners in app.events.listeners.values():
        listeners[:] = [each for each in listeners if "thebe" not in each.handler.__module__]
    styles = app.registry.css_files
    styles[:] = [style for style in styles if "thebe" not in style[0]]


def setup(app):
    app.setup_extension("recorded_outputs")
    app.connect("config-inited", use_this_repository)
    app.connect("config-inited", disconnect_thebe)
    app.connect("html-page-context", rewrite_header_buttons, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
