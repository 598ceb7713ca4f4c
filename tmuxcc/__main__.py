"""The entry point of the command ``tmuxcc`` and of ``python -m tmuxcc``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command; without its libraries, say how to install them."""
    try:
        from .cli import command
    except ModuleNotFoundError as error:
        if error.name not in ("click", "rich"):
            raise
        sys.exit("tmuxcc: the command needs two libraries more: pip install 'tmuxcc[cli]'")
    command()


if __name__ == "__main__":
    main()
