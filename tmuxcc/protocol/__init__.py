"""The control-mode protocol of tmux without I/O: bytes and values only.

Nothing here opens, waits or knows the time. Read `events`, then `parser`.
"""

from ..errors import InvalidCommand, LayoutError, ProtocolError
from .commands import Replies, command_name, encode_command, expected_replies, name_for_kept
from .layout import Layout, layout_checksum, parse_layout
from .lines import Line, prepare, result
from .parser import Parser, decode_octal
from .requests import Request, RequestQueue
from .versions import (
    CAPABILITIES,
    HAZARDS,
    OLDEST_SUPPORTED,
    Capability,
    Hazard,
    TmuxVersion,
    has_capability,
    has_hazard,
    parse_version,
)

__all__ = [
    "CAPABILITIES",
    "HAZARDS",
    "OLDEST_SUPPORTED",
    "Capability",
    "Hazard",
    "InvalidCommand",
    "Layout",
    "LayoutError",
    "Line",
    "Parser",
    "ProtocolError",
    "Replies",
    "Request",
    "RequestQueue",
    "TmuxVersion",
    "command_name",
    "decode_octal",
    "encode_command",
    "expected_replies",
    "has_capability",
    "has_hazard",
    "layout_checksum",
    "name_for_kept",
    "parse_layout",
    "parse_version",
    "prepare",
    "result",
]
