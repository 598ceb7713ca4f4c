"""The entry point of the command ``tmuxcc`` and of ``python -m tmuxcc``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command; without its libraries, say how to install them."""
    try:
        from .cli import command  # noqa: PLC0415 - its libraries are optional
    except ModuleNotFoundError as error:
        if error.name not in ("click", "rich"):
            raise
        sys.exit("tmuxcc: the command needs libraries of its own: pip install 'tmuxcc[cli]'")
    except KeyboardInterrupt:
        sys.exit(130)
    command(prog_name="tmuxcc")


if __name__ == "__main__":
    main()
