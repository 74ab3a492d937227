"""`panorama data`: what there is, get it, check it."""

import typer
from rich.console import Console
from rich.table import Table

from panorama.data import storage
from panorama.data.registry import REGISTRY, DataError, DataSet, find

data_app = typer.Typer(
    name="data",
    help="The book's data sets: list them, fetch the full ones, verify every byte.",
    no_args_is_help=True,
)


def _find(name: str) -> DataSet:
    try:
        return find(name)
    except ValueError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None


@data_app.command("list")
def list_() -> None:
    """The data sets, their licences, and which of their files are on this machine."""
    table = Table("name", "what", "licence", "full set", box=None, pad_edge=False)
    for dataset in REGISTRY.values():
        missing = [file for file in dataset.full if storage.locate(dataset, file) is None]
        if not dataset.full:
            full = "bundled"
        elif missing:
            full = f"to fetch ({sum(file.size for file in missing) / 1e6:.0f} MB)"
        else:
            full = "here"
        table.add_row(dataset.name, dataset.title, dataset.licence, full)
    Console().print(table)


@data_app.command()
def fetch(name: str) -> None:
    """Get the full data set NAME: what is missing or damaged on this machine is downloaded."""
    dataset = _find(name)
    if not dataset.full:
        typer.echo(f"{name}: nothing to fetch, all of it is bundled")
    for file in dataset.full:
        path = storage.locate(dataset, file)
        try:
            if path is not None and not storage.fault(path, file):
                typer.echo(f"{file.name}: already here, in {path.parent}")
                continue
            typer.echo(f"{file.name}: fetched into {storage.fetch(dataset, file).parent}")
        except DataError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(1) from None


@data_app.command()
def verify(name: str = typer.Argument(None, help="One data set; without it, all.")) -> None:
    """Hash every file on this machine again, and say which has changed."""
    datasets = [_find(name)] if name else list(REGISTRY.values())
    faults = 0
    for dataset in datasets:
        for file in (dataset.bundled, *dataset.full):
            path = storage.locate(dataset, file)
            if path is None:
                typer.echo(f"absent   {file.name} (not fetched)")
            elif fault := storage.fault(path, file):
                faults += 1
                typer.echo(f"CHANGED  {fault}")
            else:
                typer.echo(f"ok       {path}")
    if faults:
        typer.echo(f"error: {faults} file(s) are not what they should be", err=True)
        raise typer.Exit(1)
