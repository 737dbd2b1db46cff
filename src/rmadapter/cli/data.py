"""rmadapter data."""

from __future__ import annotations

import click

from rmadapter.cli.options import root_option
from rmadapter.errors import UserError


@click.group()
def data() -> None:
    """Public data sets, as they lie on this disk."""


@data.command()
@click.argument("name")
@root_option
def check(name: str) -> None:
    """Say what is there of a public data set (or of all), what is missing, and where it is obtained.

    Compares the numbers of classes and images with the published ones, and prints the sha256 of what decides the
    splits. Writes nothing. Exits with code 2 when something is missing or not as published.
    """
    from rmadapter.data import public_names
    from rmadapter.data.catalog import entry
    from rmadapter.data.public import check as look

    names = public_names(domains=True) if name == "all" else (name,)
    incomplete = 0
    for one in names:
        found, known = look(one), entry(one)
        incomplete += bool(found.problems)
        click.echo(f"{found.name}: {found.folder}{'' if found.problems else ', as published'}")
        for place, sha256 in found.there.items():
            click.echo(f"  there: {place}{f', sha256 {sha256}' if sha256 else ''}")
        for line in (found.counts, *found.problems):
            click.echo(f"  {line}" if line else "", nl=bool(line))
        for line in (f"obtained: {known.obtained}", f"notes: {known.notes}") if found.problems else ():
            click.echo(f"  {line}")
    if incomplete:
        many = f"{incomplete} of {len(names)} data sets are" if len(names) > 1 else f"{name} is"
        raise UserError(f"{many} not on this disk as published", remedy="see above what is missing, and where it is")
