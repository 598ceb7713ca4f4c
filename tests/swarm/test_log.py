"""Log files: every byte, in files of bounded size, whatever the disk does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tmuxcc.swarm.checks import check_agent_id
from tmuxcc.swarm.log import LogFile, log_path


def files(path: Path) -> list[bytes]:
    """The contents, the oldest first."""
    numbered = sorted(path.parent.glob(f"{path.name}.*"), key=lambda each: -int(each.suffix[1:]))
    return [each.read_bytes() for each in [*numbered, path] if each.exists()]


def test_bytes_are_kept_as_they_are_and_appended(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.log"
    for data in (b"one\r\n", b"\xff\x00\x1b[m"):
        log = LogFile(path)
        log.write(data)
        log.close()
    assert path.read_bytes() == b"one\r\n\xff\x00\x1b[m"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_what_is_written_can_be_read_at_once(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "a.log")
    log.write(b"now")
    assert (tmp_path / "a.log").read_bytes() == b"now"
    log.close()
    log.close()


def test_a_full_file_is_put_aside_and_old_ones_are_deleted(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "a.log", max_size=10, kept=2)
    for number in range(6):
        log.write(f"{number:08}".encode())
    assert files(log.path) == [b"00000003", b"00000004", b"00000005"]
    log.write(b"x" * 25)
    assert files(log.path)[-1] == b"x" * 25, "what is larger than a file is not torn"
    log.close()


def test_without_old_files_the_current_one_begins_anew(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "a.log", max_size=10, kept=0)
    log.write(b"12345678")
    log.write(b"abc")
    assert files(log.path) == [b"abc"]
    log.close()


def test_the_size_counts_what_was_there_before(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(b"123456789")
    log = LogFile(path, max_size=10, kept=1)
    log.write(b"ab")
    assert files(path) == [b"123456789", b"ab"]
    log.close()


def test_a_failure_is_kept_and_the_next_write_tries_again(tmp_path: Path) -> None:
    path = tmp_path / "file" / "a.log"
    path.parent.write_bytes(b"")
    log = LogFile(path)
    log.write(b"lost")
    assert isinstance(log.failure, OSError)
    path.parent.unlink()
    log.write(b"kept")
    assert isinstance(log.failure, OSError)
    assert path.read_bytes() == b"kept"
    log.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a Linux device")
def test_a_full_disk_is_a_failure_and_no_exception(tmp_path: Path) -> None:
    (tmp_path / "a.log").symlink_to("/dev/full")
    log = LogFile(tmp_path / "a.log")
    log.write(b"x")
    assert log.failure is not None
    assert log.failure.errno == 28


def test_a_file_that_somebody_moves_away_is_no_trouble_at_the_next_rotation(
    tmp_path: Path,
) -> None:
    log = LogFile(tmp_path / "a.log", max_size=10, kept=1)
    log.write(b"12345678")
    log.path.rename(tmp_path / "elsewhere")
    log.write(b"abcdefgh")
    assert log.failure is None
    assert log.path.read_bytes() == b"abcdefgh"
    log.close()


@pytest.mark.parametrize(
    ("agent_id", "name"),
    [
        ("agent-1", "agent-1.log"),
        ("a b@c+d,e=f", "a b@c+d,e=f.log"),
        ("a/b", "a%2Fb.log"),
        ("..", "...log"),
        ("ä", "%C3%A4.log"),
        ("100%", "100%25.log"),
    ],
)
def test_ids_become_names_of_files(tmp_path: Path, agent_id: str, name: str) -> None:
    assert log_path(tmp_path, agent_id) == tmp_path / name


@given(st.lists(st.text(min_size=1, max_size=128), min_size=1, max_size=3, unique=True))
def test_every_id_has_a_file_of_its_own_that_can_be_made(agent_ids: list[str]) -> None:
    folder = Path("/logs")
    valid = []
    for agent_id in agent_ids:
        try:
            valid.append(check_agent_id(agent_id))
        except ValueError:
            continue
    paths = {log_path(folder, agent_id) for agent_id in valid}
    assert len(paths) == len(valid)
    for path in paths:
        assert path.parent == folder
        # With room for the number of an old one.
        assert len(os.fsencode(path.name)) <= 250


@pytest.mark.parametrize("agent_id", ["🦀" * 128, "ä" * 128, "/" * 128])
def test_a_long_id_still_has_a_file(tmp_path: Path, agent_id: str) -> None:
    paths = {log_path(tmp_path, agent_id), log_path(tmp_path, agent_id[:-1])}
    assert len(paths) == 2
    for path in paths:
        log = LogFile(path)
        log.write(b"x")
        assert log.failure is None
        log.close()
