"""The test vectors of other control-mode clients, from tests/data/peer_vectors.json."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

DATA = Path(__file__).parent.parent / "data"

VECTORS = json.loads((DATA / "peer_vectors.json").read_text(encoding="utf-8"))

_ESCAPE = re.compile(rb"\\(?:([nrt\\])|x([0-9a-f]{2}))")
_SHORT = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"\\": b"\\"}


def unescape(text: str) -> bytes:
    """The bytes that a string of the vectors stands for."""
    return _ESCAPE.sub(
        lambda match: _SHORT[match[1]] if match[1] else bytes.fromhex(match[2].decode()),
        text.encode("latin-1"),
    )


def of_kind(*kinds: str, skipped: dict[str, str] | None = None) -> list:
    """Parameters for the vectors of some kinds; `skipped` maps the ids of some to reasons."""
    skipped = dict(skipped or {})
    params = []
    for vector in VECTORS:
        if vector["kind"] in kinds:
            reason = skipped.pop(vector["id"], None)
            marks = [pytest.mark.skip(reason=reason)] if reason else []
            params.append(pytest.param(vector, id=vector["id"], marks=marks))
    assert params, kinds
    assert not skipped, skipped
    return params
