r"""What a pane shows, as the bytes that draw it on a fresh terminal of its size. Pure functions.

tmux tells the cells (capture-pane), the cursor and the modes (formats), and the bytes of an escape
sequence that it has not read to its end (capture-pane -P). It does not tell the pen: what is
written next without setting a colour is drawn in the default one.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..protocol import decode_octal

# Each mode as a format and the DEC or ANSI mode that sets it, in the order of the reply.
_MODES = (
    ("insert_flag", b"4"),
    ("keypad_cursor_flag", b"?1"),
    ("wrap_flag", b"?7"),
    ("mouse_standard_flag", b"?1000"),
    ("mouse_button_flag", b"?1002"),
    ("mouse_all_flag", b"?1003"),
    ("mouse_utf8_flag", b"?1005"),
    ("mouse_sgr_flag", b"?1006"),
    ("bracket_paste_flag", b"?2004"),
    ("cursor_flag", b"?25"),
)
_STATE = (
    "pane_height",
    "cursor_x",
    "cursor_y",
    "scroll_region_upper",
    "scroll_region_lower",
    "alternate_on",
    "origin_flag",
    "keypad_flag",
)

STATE_FORMAT = ",".join(f"#{{{name}}}" for name in (*_STATE, *(name for name, _ in _MODES)))
"""What to ask of ``display-message -p``; a version that does not know a format leaves it empty."""


def draw(screen: Sequence[bytes], pending: Sequence[bytes], state: str) -> bytes:
    """The bytes that draw `screen` (``capture-pane -peN``) in its `state` (`STATE_FORMAT`).

    `pending` is ``capture-pane -pPC``.
    """
    fields = [int(field) if field.isdigit() else 0 for field in state.split(",")]
    height, x, y, upper, lower, alternate, origin, keypad = fields[: len(_STATE)]
    parts = [b"\x1b[!p\x1b[?1049h" if alternate else b"\x1b[!p\x1b[?1049l", b"\x1b[m\x1b[2J"]
    for row, line in enumerate(screen[: height or len(screen)], 1):
        if line:
            parts.append(b"\x1b[%dH%s\x1b[m" % (row, line))
    if (upper, lower) != (0, height - 1) and lower:
        parts.append(b"\x1b[%d;%dr" % (upper + 1, lower + 1))
    modes = [(mode, value) for (_, mode), value in zip(_MODES, fields[len(_STATE) :], strict=True)]
    # What is off comes first: to switch one mouse mode off is to switch all of them off.
    parts.extend(b"\x1b[%sl" % mode for mode, value in modes if not value)
    parts.extend(b"\x1b[%sh" % mode for mode, value in modes if value)
    parts.append(b"\x1b=" if keypad else b"\x1b>")
    parts.append(b"\x1b[?6%s" % (b"h" if origin else b"l"))
    # With origin mode rows are counted from the top of the scroll region.
    parts.append(b"\x1b[%d;%dH" % (y + 1 - (upper if origin else 0), x + 1))
    parts.extend(decode_octal(line) for line in pending)
    return b"".join(parts)
