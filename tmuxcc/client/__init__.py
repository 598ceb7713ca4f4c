"""The trio client: the only layer that opens a process."""
