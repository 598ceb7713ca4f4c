"""``tmuxcc doctor``: what is there, what works, and what is wrong."""

import click


@click.command()
def doctor() -> None:
    """Look."""
