"""tmuxcc."""
