"""Where a swarm lives: its folder, the lock of the master that runs it, and what others find there.

A folder of mode 0700 holds the socket of the tmux server, its configuration, and a file that the
master locks as long as it runs, so that all shells of a user find the swarm and no two masters run
it. Talking to tmux, and ending anything, must not live here.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from attrs import frozen

from ..client.start import check_socket_path
from ..errors import InvalidSwarm, SessionCreationError, SwarmRunning
from .checks import check_cluster_id
from .processes import Identity, identity, is_alive, is_listening, take_snapshot

FOLDER_VARIABLE = "TMUXCC_DIR"
"""The environment variable that names the folder in which swarms have theirs."""

SOCKET = "socket"
CONFIGURATION = "tmux.conf"
_LOCK = "lock"
_MARK = "mark"
# The last one is tmux's own, there while a server starts.
_FILES = (SOCKET, CONFIGURATION, _MARK, f"{SOCKET}.lock")

# A lock may be held for a moment by somebody who looks whether it is, or by a master that has not
# said yet who it is.
_PATIENCE = 0.5
_PAUSE = 0.002


def swarm_folder(cluster_id: str) -> Path:
    """The folder of a swarm, there or not: the same in all shells of a user.

    It is ``$TMUXCC_DIR/CLUSTER_ID``, or without that variable
    ``${TMUX_TMPDIR:-/tmp}/tmuxcc-UID/CLUSTER_ID``. Raises `InvalidSwarm` if the id is none.
    """
    return _parent() / check_cluster_id(cluster_id, where="cluster_id")


def _parent() -> Path:
    given = os.environ.get(FOLDER_VARIABLE)
    if given:
        return Path(given).absolute()
    # Resolved, as the socket is later looked up by its very name.
    base = Path(os.environ.get("TMUX_TMPDIR") or "/tmp").resolve()  # noqa: S108 - as tmux does
    return base / f"tmuxcc-{os.getuid()}"


class Home:
    """The folder of one swarm. Nothing is made before it is locked."""

    def __init__(self, cluster_id: str) -> None:
        self.cluster_id = cluster_id
        self.folder = swarm_folder(cluster_id)
        self.socket_path = self.folder / SOCKET
        self._lock = -1

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder and be the master for the time of the block. Nothing is removed after it.

        No child gets the lock, and it ends with this process, whatever ends that. Raises
        `SwarmRunning` if another master runs, `SessionCreationError` if the folder is not for this
        user alone and can't be made so, and `SocketPathTooLong`.
        """
        check_socket_path(str(self.socket_path))
        self._lock = self._take_lock()
        try:
            yield
        finally:
            os.ftruncate(self._lock, 0)
            os.close(self._lock)
            self._lock = -1

    def write_configuration(self, text: str) -> Path:
        """Write the configuration for tmux; where it is. Only while it is locked."""
        return self._write(CONFIGURATION, text)

    @property
    def mark(self) -> str | None:
        """The mark that was noted last, maybe by a master that was killed since."""
        try:
            return (self.folder / _MARK).read_text("utf-8") or None
        except FileNotFoundError:
            return None

    def note_mark(self, mark: str) -> None:
        """Note what all processes of the swarm have in their environment, as ``NAME=value``.

        So the next master finds them even when tmux is gone. Only while it is locked.
        """
        self._write(_MARK, mark)

    def remove(self) -> bool:
        """Remove the folder, if there is nothing of the swarm any more; whether that is so.

        It stays while somebody listens on the socket or a process with the noted mark runs. Files
        that are not ours, such as logs, are left with the folder. Only while it is locked.
        """
        self._check_locked()
        mark = self.mark
        if is_listening(self.socket_path):
            return False
        if mark is not None and take_snapshot().marked([os.fsencode(mark)]):
            return False
        # The lock last, as somebody else may take its place from then on.
        for name in (*_FILES, _LOCK):
            (self.folder / name).unlink(missing_ok=True)
        with suppress(OSError):
            self.folder.rmdir()
        return True

    def _write(self, name: str, text: str) -> Path:
        self._check_locked()
        path = self.folder / name
        path.write_text(text, "utf-8")
        return path

    def _check_locked(self) -> None:
        if self._lock < 0:
            raise RuntimeError("this needs the lock: do it in the block of locked()")

    def _take_lock(self) -> int:
        deadline = time.monotonic() + _PATIENCE
        while True:
            self._make_folder()
            try:
                lock = os.open(self.folder / _LOCK, _OPEN | os.O_CREAT | os.O_RDWR, 0o600)
            except FileNotFoundError:
                # The folder has just been removed.
                continue
            except OSError as error:
                raise SessionCreationError(
                    self.cluster_id, f"{self.folder / _LOCK} can't be opened: {error.strerror}"
                ) from error
            try:
                holder = _lock_or_tell(lock)
                if holder is None and self._is_current(lock):
                    ours = identity(os.getpid()) or Identity(os.getpid(), 0)
                    os.ftruncate(lock, 0)
                    os.pwrite(lock, f"{ours.pid} {ours.start_time}\n".encode(), 0)
                    kept, lock = lock, -1
                    return kept
            finally:
                if lock >= 0:
                    os.close(lock)
            if holder is not None:
                if is_alive(holder) or (holder.pid and time.monotonic() > deadline):
                    raise SwarmRunning(self.cluster_id, holder.pid)
                if time.monotonic() > deadline:
                    raise SessionCreationError(
                        self.cluster_id, f"somebody keeps a lock on {self.folder / _LOCK}"
                    )
                time.sleep(_PAUSE)

    def _is_current(self, lock: int) -> bool:
        """Whether the locked file is still the one that others find: not removed meanwhile."""
        try:
            now = (self.folder / _LOCK).stat(follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(now, os.fstat(lock))

    def _make_folder(self) -> None:
        parent = self.folder.parent
        if os.environ.get(FOLDER_VARIABLE):
            # What somebody has chosen is not changed.
            self._make_own(parent, narrow=False)
        else:
            base = parent.parent
            with suppress(OSError):
                mode = base.stat().st_mode
                if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
                    raise SessionCreationError(
                        self.cluster_id,
                        f"in {base} anybody can replace what is yours: chmod +t {base}, or"
                        f" {_ELSEWHERE}",
                    )
            self._make_own(parent, narrow=True)
        self._make_own(self.folder, narrow=True)

    def _make_own(self, folder: Path, *, narrow: bool) -> None:
        """Make a folder, or make sure of one: no link, ours, and nobody else can change it."""
        try:
            with suppress(FileExistsError):
                folder.mkdir(mode=0o700)
            descriptor = os.open(folder, _OPEN | os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            if error.errno == errno.ENOENT and folder != self.folder:
                why = f"there is no folder {folder.parent}: make it, or {_ELSEWHERE}"
            elif error.errno in (errno.ELOOP, errno.ENOTDIR):
                why = f"{folder} is a link or no folder: remove it, or {_ELSEWHERE}"
            elif error.errno == errno.ENOENT:
                # Removed in between; its parent is there, so that it can be made again.
                return
            else:
                why = f"{folder} can't be made or opened: {error.strerror}; {_ELSEWHERE}"
            raise SessionCreationError(self.cluster_id, why) from error
        try:
            why_not = _why_not_own(descriptor, narrow=narrow)
        finally:
            os.close(descriptor)
        if why_not is not None:
            raise SessionCreationError(self.cluster_id, f"{folder} {why_not}, or {_ELSEWHERE}")


_OPEN = os.O_NOFOLLOW | os.O_CLOEXEC
_ELSEWHERE = f"set {FOLDER_VARIABLE} to a folder of your own"


def _why_not_own(descriptor: int, *, narrow: bool) -> str | None:
    """What is wrong with a folder, and what to do; its mode is set to 0700 if `narrow` is."""
    status = os.fstat(descriptor)
    if status.st_uid != os.getuid():
        return f"belongs to user {status.st_uid}: have it removed"
    if narrow and stat.S_IMODE(status.st_mode) != 0o700:
        with suppress(OSError):
            os.fchmod(descriptor, 0o700)
        if stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o077:
            return "is open to others, and its mode can't be set to 0700: make it anew"
    if not narrow and status.st_mode & 0o022:
        return "can be changed by others: chmod go-w it"
    return None


def _lock_or_tell(lock: int) -> Identity | None:
    """Lock a file without waiting; if somebody else has, who (its number 0: not said yet)."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder(lock) or Identity(0, 0)
    return None


def _holder(lock: int) -> Identity | None:
    match = re.fullmatch(rb"([0-9]+) ([0-9]+)\n", os.pread(lock, 100, 0))
    return None if match is None else Identity(int(match[1]), int(match[2]))


# What is there


@frozen
class FoundSwarm:
    """A swarm's folder: whether tmux listens there, and which process runs it (None: none does)."""

    cluster_id: str
    folder: Path
    socket_path: Path
    listening: bool
    master_pid: int | None


def running_swarms() -> list[FoundSwarm]:
    """The swarms of this user whose tmux listens, those that were kept by their masters too."""
    return [found for found in _all_folders() if found.listening]


def stale_swarms() -> list[FoundSwarm]:
    """Those that were left behind: no tmux listens and no master runs."""
    return [found for found in _all_folders() if not found.listening and found.master_pid is None]


def _all_folders() -> Iterator[FoundSwarm]:
    try:
        parent = _parent()
        if not _is_ours(parent):
            return
        folders = sorted(parent.iterdir())
    except OSError:
        return
    for folder in folders:
        try:
            check_cluster_id(folder.name)
            ours = _is_ours(folder)
            lock = os.open(folder / _LOCK, _OPEN | os.O_RDONLY) if ours else -1
        except (InvalidSwarm, OSError):
            continue
        if lock >= 0:
            try:
                master_pid = _locked_by(lock)
            finally:
                os.close(lock)
            socket = folder / SOCKET
            yield FoundSwarm(folder.name, folder, socket, is_listening(socket), master_pid)


def _is_ours(folder: Path) -> bool:
    status = folder.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()


def _locked_by(lock: int) -> int | None:
    """Who holds the lock of a running master: 0 if he has not said it yet; None if nobody does."""
    try:
        # Shared, so that others who look are not in the way.
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = _holder(lock)
        return 0 if holder is None else holder.pid
    return None
