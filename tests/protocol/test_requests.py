"""Which reply belongs to which request: `tmuxcc.protocol.requests`."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tmuxcc.errors import ProtocolError
from tmuxcc.protocol import Parser, Request, RequestQueue
from tmuxcc.protocol.events import Reply, Unknown, WindowAdd

from .streams import guarded, replied
from .vectors import of_kind, unescape

# ---------------------------------------------------------------------------------------- vectors


class _Session:
    """A parser and a queue, driven by a script."""

    def __init__(self) -> None:
        self.parser = Parser()
        self.queue = RequestQueue()
        self.requests: dict[str, Request] = {}
        self.completed: list[Request] = []
        self.others: list[object] = []

    def send(self, name: str, marker: bytes = b"") -> Request:
        if marker:
            self.parser.fence(marker)
        self.requests[name] = self.queue.add([name], marker)
        return self.requests[name]

    def receive(self, data: bytes) -> None:
        for event in self.parser.receive_data(data):
            if isinstance(event, Reply):
                request = self.queue.receive_reply(event)
                if request is not None:
                    self.completed.append(request)
            elif not (isinstance(event, Unknown) and self.queue.receive_stray(event.line)):
                self.others.append(event)


_SCRIPTED = of_kind(
    "correlate",
    skipped={
        "correlate-011": "a list of commands in one line is fenced here: see the test below",
        "correlate-013": "if-shell is fenced here: see the test below",
    },
)


@pytest.mark.parametrize("vector", _SCRIPTED)
def test_script_of_a_peer_gives_each_command_its_reply(vector: dict) -> None:
    session = _Session()
    error = None
    for step in vector["input"]:
        verb, _, name = step.partition(" ")
        if verb == "send":
            session.send(name[:1])
        elif verb == "timeout":
            session.queue.abandon(session.requests[name])
        else:
            try:
                session.receive(unescape(step))
            except ProtocolError as caught:
                error = caught
    assert [request.argv[0] for request in session.completed] == list(session.requests)[
        : len(session.completed)
    ]
    lines = {
        str(request.argv[0]): [line.decode() for line in request.replies[0].lines]
        for request in session.completed
    }
    for key, wanted in vector["expected"].items():
        if key == "unsolicited":
            assert session.queue.unsolicited == wanted
        elif key == "events":
            assert session.others == [WindowAdd("@3")]
        elif key == "input_errors":
            assert [request.replies[0].ok for request in session.completed] == [False]
        elif isinstance(wanted, list):
            assert lines[key] == wanted
        else:
            assert wanted.startswith("protocol error")
            assert error is not None
            assert key not in lines


MARKER = b"m" * 32


def test_fenced_list_has_its_replies_and_the_next_command_its_own() -> None:  # correlate-011
    session = _Session()
    group = session.send("a ; bad ; c", MARKER)
    after = session.send("D")
    session.receive(guarded(1, MARKER) + guarded(2, b"1") + guarded(3, b"no such", ok=False))
    assert not group.done
    session.receive(guarded(4, MARKER) + guarded(5, b"D"))
    assert group.replies == [replied(2, b"1"), replied(3, b"no such", ok=False)]
    assert after.replies == [replied(5, b"D")]
    assert session.completed == [group, after]


def test_fenced_if_shell_has_both_its_replies() -> None:  # correlate-013
    session = _Session()
    fenced = session.send("if-shell", MARKER)
    after = session.send("D")
    session.receive(guarded(1, MARKER) + guarded(2) + guarded(3, b"yes") + guarded(4, MARKER))
    session.receive(guarded(5, b"D"))
    assert [reply.lines for reply in fenced.replies] == [(), (b"yes",)]
    assert after.replies == [replied(5, b"D")]


def test_a_line_with_a_known_number_of_replies_needs_no_fence() -> None:
    queue = RequestQueue()
    twice, once = queue.add(["if-shell"], expected=2), queue.add(["D"])

    assert queue.receive_reply(replied(1)) is None
    assert queue.receive_reply(replied(2, b"yes")) is twice
    assert queue.receive_reply(replied(3, b"D")) is once


# ------------------------------------------------------------------------------- what does not fit


def test_fence_without_replies_completes_an_empty_request() -> None:
    queue = RequestQueue()
    request = queue.add(["# nothing"], MARKER)
    assert queue.receive_reply(replied(1, MARKER)) is None
    assert queue.receive_reply(replied(2, MARKER)) is request
    assert request.replies == []
    assert request.done


def test_reply_where_a_fence_should_stand_is_an_error() -> None:
    queue = RequestQueue()
    queue.add(["capture-pane"], MARKER)
    with pytest.raises(ProtocolError, match="where a fence should stand"):
        queue.receive_reply(replied(1, b"text"))


def test_fence_where_a_reply_should_stand_is_an_error() -> None:
    queue = RequestQueue()
    queue.add(["list-panes"])
    queue.add(["capture-pane"], MARKER)
    with pytest.raises(ProtocolError, match="where a reply should stand") as caught:
        queue.receive_reply(replied(1, MARKER))
    assert caught.value.line == MARKER


@pytest.mark.parametrize("number", [5, 4])
def test_numbers_that_do_not_rise_are_an_error(number: int) -> None:
    queue = RequestQueue()
    queue.receive_reply(replied(5))
    with pytest.raises(ProtocolError, match="forged"):
        queue.receive_reply(replied(number))


def test_numbers_may_wrap_around() -> None:
    queue = RequestQueue()
    queue.receive_reply(replied(2**32 - 1))
    queue.receive_reply(replied(0))
    assert queue.unsolicited == 2


def test_numbers_of_hooks_do_not_count() -> None:
    queue = RequestQueue()
    queue.receive_reply(replied(5))
    assert queue.receive_reply(replied(5, flags=0)) is None
    assert queue.unsolicited == 1


def test_a_marker_in_use_is_refused_and_free_again_when_it_is_done() -> None:
    queue = RequestQueue()
    queue.add(["a"], MARKER)
    with pytest.raises(ValueError, match="one request only"):
        queue.add(["b"], MARKER)
    queue.receive_reply(replied(1, MARKER))
    queue.receive_reply(replied(2, MARKER))
    assert queue.add(["b"], MARKER).marker == MARKER


def test_stray_lines_belong_to_the_fenced_request_that_stands_open() -> None:
    queue = RequestQueue()
    assert not queue.receive_stray(b"early")
    plain = queue.add(["list-panes"])
    fenced = queue.add(["load-buffer"], MARKER)
    assert not queue.receive_stray(b"before")
    queue.receive_reply(replied(1))
    assert not queue.receive_stray(b"not opened")
    queue.receive_reply(replied(2, MARKER))
    assert queue.receive_stray(b"No such file")
    queue.receive_reply(replied(3, MARKER))
    assert not queue.receive_stray(b"after")
    assert plain.strays == []
    assert fenced.strays == [b"No such file"]


# -------------------------------------------------------------------------------- any interleaving


class QueueMachine(RuleBasedStateMachine):
    """A queue beside a model of tmux, that answers what was sent in order."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = RequestQueue()
        self.number = 0
        self.sent: list[Request] = []
        self.answers: dict[int, list[Reply]] = {}
        self.strays: dict[int, list[bytes]] = {}
        self.open = False
        self.solicited = 0
        self.markers = 0

    def _reply(self, *lines: bytes, flags: int = 1, ok: bool = True) -> Reply:
        self.number += 1
        return replied(self.number, *lines, flags=flags, ok=ok)

    @rule()
    def send(self) -> None:
        self.sent.append(self.queue.add(["command"]))

    @rule()
    def send_fenced(self) -> None:
        self.markers += 1
        self.sent.append(self.queue.add(["command"], b"marker-%d" % self.markers))

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def abandon(self, data: st.DataObject) -> None:
        self.queue.abandon(data.draw(st.sampled_from(self.sent)))

    def _complete(self, reply: Reply) -> None:
        request = self.sent.pop(0)
        assert not request.done
        assert self.queue.receive_reply(reply) is request
        assert request.done
        assert request.replies == self.answers.pop(id(request), [])
        assert request.strays == self.strays.pop(id(request), [])
        self.open = False

    @precondition(lambda self: self.sent and not self.sent[0].marker)
    @rule(ok=st.booleans())
    def answer(self, ok: bool) -> None:
        reply = self._reply(b"text", ok=ok)
        self.answers[id(self.sent[0])] = [reply]
        self._complete(reply)

    @precondition(lambda self: self.sent and self.sent[0].marker and not self.open)
    @rule()
    def open_fence(self) -> None:
        assert self.queue.receive_reply(self._reply(self.sent[0].marker)) is None
        self.open = True

    @precondition(lambda self: self.open)
    @rule(ok=st.booleans(), text=st.sampled_from([(), (b"a",), (b"a", b"marker-1")]))
    def answer_fenced(self, ok: bool, text: tuple[bytes, ...]) -> None:
        reply = self._reply(*text, ok=ok)
        self.answers.setdefault(id(self.sent[0]), []).append(reply)
        assert self.queue.receive_reply(reply) is None

    @precondition(lambda self: self.open)
    @rule()
    def close_fence(self) -> None:
        self._complete(self._reply(self.sent[0].marker))

    @rule(text=st.sampled_from([b"hooked", b"marker-1"]))
    def hook_reply(self, text: bytes) -> None:
        assert self.queue.receive_reply(self._reply(text, flags=0)) is None

    @precondition(lambda self: not self.sent)
    @rule()
    def unsolicited_reply(self) -> None:
        assert self.queue.receive_reply(self._reply(b"whose?")) is None
        self.solicited += 1

    @rule()
    def stray_line(self) -> None:
        assert self.queue.receive_stray(b"stray") == self.open
        if self.open:
            self.strays.setdefault(id(self.sent[0]), []).append(b"stray")

    @rule()
    def close(self) -> None:
        left = self.queue.close()
        assert left == self.sent
        assert not any(request.done for request in left)
        self.sent.clear()
        self.answers.clear()
        self.strays.clear()
        self.open = False

    @invariant()
    def counts_agree(self) -> None:
        assert len(self.queue) == len(self.sent)
        assert self.queue.oldest is (self.sent[0] if self.sent else None)
        assert self.queue.abandoned == sum(request.abandoned for request in self.sent)
        assert self.queue.unsolicited == self.solicited


QueueMachine.TestCase.settings = settings(deadline=None, max_examples=40, stateful_step_count=40)
test_any_interleaving_agrees_with_the_model = QueueMachine.TestCase
