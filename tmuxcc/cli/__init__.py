"""The command ``tmuxcc``: its verbs, what they share, and how failures are told.

This is the only layer that prints or exits. A failure of tmux is one line on stderr and exit
status 1, wrong use is exit status 2. Each verb has its own module.
"""

from .main import command

__all__ = ["command"]
