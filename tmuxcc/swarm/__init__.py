"""Agents: programs in the panes of a tmux session of their own, and one master that runs them."""
