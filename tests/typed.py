"""Commands as a user types them, in this process."""

from __future__ import annotations

from click.testing import CliRunner, Result

from rmadapter.cli import cli


def run(*arguments: object) -> Result:
    """What a command did."""
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def good(*arguments: object) -> str:
    """What a command that works prints."""
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout
