"""What can't be run under the wrapper: `tmuxcc.client.program`. test_wrapper.py runs programs."""

from __future__ import annotations

import pytest

from tmuxcc.client.program import new_nonce, wrapped
from tmuxcc.errors import InvalidCommand


@pytest.mark.parametrize("argv", [[], (), "", "ls -l", [""], ["", "-l"], None])
def test_what_names_no_program_is_refused(argv: object) -> None:
    with pytest.raises(InvalidCommand, match="a list that begins with the program"):
        wrapped(argv, new_nonce())  # type: ignore[arg-type]


def test_the_arguments_stand_behind_the_nonce_as_they_are() -> None:
    nonce = new_nonce()
    argv = ["printf", "%s\n", "", "a b", "'; exit #", "é\udcff\n"]
    command = wrapped(argv, nonce)
    assert command[:2] == ["/bin/sh", "-c"]
    assert command[-len(argv) - 1 :] == [nonce, *argv]
    assert wrapped(argv, nonce) == command


def test_a_nonce_is_never_used_twice() -> None:
    nonces = {new_nonce() for _ in range(100)}
    assert len(nonces) == 100
    assert all(len(nonce) == 32 and int(nonce, 16) >= 0 for nonce in nonces)
