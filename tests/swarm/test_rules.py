"""Kinds of agents, their rules, and what these find on screens: `tmuxcc.swarm.rules`."""

# ruff: noqa: RUF001 -- the screens are drawn with the characters that the programs draw

from __future__ import annotations

import contextlib
import pickle
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tmuxcc.errors import InvalidSwarm
from tmuxcc.swarm import rules
from tmuxcc.swarm.rules import (
    GENERIC,
    AgentKind,
    Region,
    Rule,
    kind_for,
    load_kind,
    load_kinds,
)
from tmuxcc.swarm.state import Activity

RULE = "─" * 60

# What Claude Code shows around what is asked about.
CLAUDE_BOX = f"""
{RULE}
❯
{RULE}
  ⏵⏵ accept edits on (shift+tab to cycle)
"""
CLAUDE = {
    "fresh": (
        "idle",
        f"""
 ▐▛███▜▌   Claude Code v2.1.45
▝▜█████▛▘  Opus 4.8 · Claude Max
  ▘▘ ▝▝    ~/src/app

{RULE}
❯ Try "fix lint errors"
{RULE}
  ? for shortcuts
""",
    ),
    "answered": (
        "idle",
        f"""
❯ 1. rename foo
  2. run the tests

● Both are done. Would you like to commit? If yes, I will push as well.

✻ Cooked for 2m 34s
{CLAUDE_BOX}""",
    ),
    "with a list typed": (
        "idle",
        f"""
● Done.
{RULE}
❯ 1. rename foo
  2. run the tests
{RULE}
  ? for shortcuts
""",
    ),
    "session named in the rule": (
        "idle",
        f"● Done.\n{RULE} fix the build ─\n❯\n{RULE}\n  -- INSERT -- ⏵⏵ auto mode on\n",
    ),
    "box of 1.x": (
        "idle",
        f"● Done.\n╭{RULE}╮\n│ >{' ' * 58}│\n╰{RULE}╯\n  ? for shortcuts\n",
    ),
    "waited for agents before": (
        "idle",
        f"""
✻ Waiting for 1 background agent to finish

● Agent "Audit" finished · 55s

● The audit found nothing.
{CLAUDE_BOX}""",
    ),
    "thinking": (
        "busy",
        f"""
❯ fix the parser

✽ Precipitating… (35s · ↑ 2.4k tokens · thinking with high effort)
{CLAUDE_BOX}""",
    ),
    "just begun": ("busy", f"❯ fix the parser\n\n* Cultivating…\n{CLAUDE_BOX}"),
    "unicode spinner": ("busy", f"❯ fix it\n\n✳ Whirring… (3s)\n{CLAUDE_BOX}"),
    "with a list of tasks": (
        "busy",
        f"""
✶ Fixing the parser… (1m 12s · ↓ 3.7k tokens)
  ⎿  ☒ Read the grammar
     ☐ Write a test
     ☐ Make it pass
{CLAUDE_BOX}""",
    ),
    "hint below the box": (
        "busy",
        f"● Bash(make)\n  ⎿  Running…\n{RULE}\n❯\n{RULE}\n  ⏵⏵ auto mode on · esc to interrupt\n",
    ),
    "compacting": ("busy", f"✢ Compacting conversation…\n{CLAUDE_BOX}"),
    "waiting for agents": (
        "busy",
        f"● It reports back.\n✻ Waiting for 2 background agents to finish\n{CLAUDE_BOX}",
    ),
    "1.x at work": (
        "busy",
        f"✻ Thinking… (3s · esc to interrupt)\n\n╭{RULE}╮\n│ >{' ' * 58}│\n╰{RULE}╯\n",
    ),
    "may it run a command": (
        "blocked",
        f"""
● Bash(git push)
  ⎿  Waiting…
{RULE}
 Bash command

   git push origin main

 Do you want to proceed?
 ❯ 1. Yes
   2. Yes, and don't ask again for git push commands in /src/app
   3. No

 Esc to cancel · Tab to amend
""",
    ),
    "may it edit, without a footer": (
        "blocked",
        """
 Do you want to make this edit to parser.py?
 ❯ 1. Yes
   2. Yes, allow all edits during this session (shift+tab)
   3. No, and tell Claude what to do differently (esc)
""",
    ),
    "1.x dialog": (
        "blocked",
        f"""
╭{RULE}╮
│ Bash command                          │
│ npm test                              │
│ Do you want to proceed?               │
│ ❯ 1. Yes                              │
│   2. No, and tell Claude what to do   │
╰{RULE}╯
""",
    ),
    "plan": (
        "blocked",
        f"""
{RULE}
 Ready to code?

 Would you like to proceed?

 ❯ 1. Yes, and auto-accept edits
   2. Yes, and manually approve edits
   3. No, keep planning
""",
    ),
    "question with long answers": (
        "blocked",
        """
 ☐ Cache

Which cache should it use?

❯ 1. The one in memory (Recommended)
     Gone after a restart, needs nothing
  2. Redis
     One more server
  3. Type something.
  4. Chat about this

Enter to select · ↑/↓ to navigate · Esc to cancel
""",
    ),
    "question, cursor on submit": (
        "blocked",
        """
←  ☒ Capture  ✔ Submit  →
  1. [✔] Go
❯    Submit
Enter to select · ↑/↓ to navigate · Esc to cancel
""",
    ),
    "narrow pane": ("blocked", " Allow it?\n ❯ 1. Allow\n   2. Deny (esc)\n Esc to\n cancel\n"),
    "asked by a server": (
        "blocked",
        """
  MCP server "db" requests your input

  ❯ Accept    Decline

  Esc to cancel · ↑/↓ to navigate
""",
    ),
    "trust": (
        "blocked",
        """
 Is this a project you created or one you trust?

 ❯ 1. Yes, I trust this folder
   2. No, exit

 Enter to confirm · Esc to cancel
""",
    ),
    "login": ("blocked", "\n Login successful. Press Enter to continue…\n"),
    "transcript": (
        "unknown",
        f"● Done.\n{RULE}\n  Showing detailed transcript · ctrl+o to toggle\n",
    ),
    "prose without a box": (
        None,
        "● I finished it.\n\n  Would you like to open a pull request? If yes, I will push.\n",
    ),
}
CODEX = {
    "fresh": (
        "idle",
        """
╭──────────────────────────────────────────────╮
│ >_ OpenAI Codex (v0.145.0)                   │
╰──────────────────────────────────────────────╯

  Tip: Build faster with the Desktop app.


› Write tests for @filename

  gpt-5.6-sol medium · Context 100% left
""",
    ),
    "answered": (
        "idle",
        """
› run the tests

• Ran pytest (12s)
  └ 14 passed

─ Worked for 1m 02s ─────────────────────

› Ask Codex to do anything

  ? for shortcuts                                            98% context left
""",
    ),
    "composer of 2025": (
        "idle",
        "> Done.\n\n▌ Ask Codex to do anything\n ⏎ send   Ctrl+J newline   Ctrl+C quit\n",
    ),
    "working": (
        "busy",
        """
› run the tests

• Working (0s • esc to interrupt)

  ↳ and then commit
  ↳ and push

› Ask Codex to do anything

  ? for shortcuts                                            100% context left
""",
    ),
    "hollow bullet, own words": (
        "busy",
        "◦ Applying both edits (1h 2m 52s • esc to interrupt)\n\n› \n\n  gpt-5.6-sol · ~/src\n",
    ),
    "older words": (
        "busy",
        "  Investigating rendering code (0s • Esc to interrupt)\n\n› Summarize\n\n  ? for help\n",
    ),
    "another interrupt key": ("busy", "• Working (2s • f12 to interrupt)\n\n› \n"),
    "no interrupt key": ("busy", "• Working (2m 10s)\n\n› Ask Codex to do anything\n"),
    "may it run a command": (
        "blocked",
        """
  Would you like to run the following command?

  Reason: it needs the network

  $ git push

› 1. Yes, proceed (y)
  2. Yes, and don't ask again for commands that start with `git push` (p)
  3. No, and tell Codex what to do differently (esc)

  Press enter to confirm or esc to cancel
""",
    ),
    "may it edit, footer cut off": (
        "blocked",
        "  Would you like to make the following edits?\n\n› 1. Yes, proceed (y)\n  2. No (esc)\n",
    ),
    "dialog of 2025": (
        "blocked",
        """
▌ Apply changes?
▌
▌ > 1. Approve  (Y) Apply the proposed changes
▌   2. Cancel   (N) Do not apply the changes

Press Enter to confirm or Esc to go back
""",
    ),
    "command of 2025": ("blocked", "▌ Allow command?\n▌\n▌ git push\n▌\n▌ Yes   Always   No\n"),
    "question": (
        "blocked",
        """
Question 1/1 (1 unanswered)
Choose an action
› 1. Allow
  2. Reject
tab to add notes | enter to submit answer | esc to interrupt
""",
    ),
    "trust": (
        "blocked",
        """
> You are in /src/app

  Do you trust the contents of this directory?

› 1. Yes, continue
  2. No, quit

  Press enter to continue
""",
    ),
    "transcript": ("unknown", "• Done\n ↑/↓ to scroll   pgup/pgdn to page\n q to quit\n"),
    "nothing known": (None, "  Loading…\n"),
}
AIDER = {
    "fresh": ("idle", "Aider v0.86.1\nRepo-map: using 4096 tokens\n────────────\n>\n"),
    "with files and a format": ("idle", "────────────\nparser.py\narchitect multi>\n"),
    "asked": ("idle", "Tokens: 2.3k sent, 120 received.\n────────────\nask>\n"),
    "just submitted": (None, "────────────\n> fix the parser\n"),
    "waiting": ("busy", "> fix the parser\n\n ░█        Waiting for gpt-4o\n"),
    "waiting, plain": ("busy", "> fix the parser\n\n   =#      Waiting for gpt-4o\n"),
    "answering": (None, "> fix the parser\n\nI'll change `parse`:\n"),
    "may it add": (
        "blocked",
        "parser.py\nAdd file to the chat? (Y)es/(N)o/(A)ll/(S)kip all/(D)on't ask again [Yes]:\n",
    ),
    "may it run": ("blocked", "pytest\nRun shell command? (Y)es/(N)o/(D)on't ask again [Yes]:\n"),
    "wrapped": ("blocked", "Attempt to fix lint\nerrors? (Y)es/(N)o\n[Yes]:\n"),
    "answered": (None, "Run shell command? (Y)es/(N)o [Yes]: y\n"),
}
SHELL = {
    "bash": ("idle", "total 4\nuser@host:~/src$\n"),
    "sh": ("idle", "$\n"),
    "root": ("idle", "done\n[root@host /]#\n"),
    "zsh": ("idle", "web01%\n"),
    "zsh with a folder": ("idle", "user@host ~/src %\n"),
    "starship": ("idle", "~/src on main [!] via 🐍 v3.11\n❯\n"),
    "robbyrussell": ("idle", "➜  src git:(main) ✗\n"),
    "fish": ("idle", "user@host ~/src>\n"),
    "fish at home": ("idle", "user@host ~>\n"),
    "pwsh": ("idle", "PS /home/user>\n"),
    "running": (None, "user@host:~/src$ sleep 100\n"),
    "running in robbyrussell": (None, "➜  src git:(main) ✗ sleep 100\n"),
    "percentage": (None, "Downloading  45%\n"),
    "percentage in brackets": (None, "[=====>    ] 45.2 %\n"),
    "row of signs": (None, "###########\n"),
    "markup": (None, "</html>\n"),
    "sudo": ("blocked", "$ sudo make install\n[sudo] password for user:\n"),
    "ssh password": ("blocked", "user@host's password:\n"),
    "ssh key": ("blocked", "Enter passphrase for key '/home/user/.ssh/id':\n"),
    "ssh host": (
        "blocked",
        "Are you sure you want to continue connecting (yes/no/[fingerprint])?\n",
    ),
    "git": ("blocked", "Username for 'https://example.com':\n"),
    "apt": ("blocked", "Do you want to continue? [Y/n]\n"),
    "conda": ("blocked", "Proceed ([y]/n)?\n"),
    "key": ("blocked", "Press any key to continue . . .\n"),
    "pager": ("blocked", "     ls - list\n(END)\n"),
    "more": ("blocked", "line\n--More--(12%)\n"),
    "unfinished": ("unknown", "user@host:~$ echo 'one\n>\n"),
    "unfinished in zsh": ("unknown", "host% echo 'one\nquote>\n"),
    "empty": (None, "\n\n"),
}
SCREENS = {"claude": CLAUDE, "codex": CODEX, "aider": AIDER, "shell": SHELL}
TITLES = [
    ("claude", "⠂ Fix the parser", "busy"),
    ("claude", "⠐ Fix the parser", "busy"),
    ("claude", "◐ Fix the parser", "busy"),
    ("claude", "✳ Claude Code", "idle"),
    ("claude", "✳", "idle"),
    ("claude", "claude ~/src", None),
    ("claude", "", None),
    ("codex", "⠦ src", "busy"),
    ("codex", "main | ⠋ | src", "busy"),
    ("codex", "[ ! ] Action Required | src", "blocked"),
    ("codex", "[ . ] Action Required | src", "blocked"),
    ("codex", "src", None),
    ("aider", "⠋ aider", None),
    ("shell", "✳ x", None),
    ("generic", "⠋ x", None),
]


def says(found: tuple[Rule, str] | None) -> str | None:
    return found[0].activity.value if found else None


# ---------------------------------------------------------------------------------------- screens


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, screens in SCREENS.items() for name in screens]
)
def test_what_a_screen_says(kind: str, name: str) -> None:
    expected, screen = SCREENS[kind][name]
    lines = screen.split("\n")
    found = load_kinds()[kind].match_screen(lines)
    assert says(found) == expected, found
    if found is not None:
        assert found[1] in screen


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, screens in SCREENS.items() for name in screens]
)
def test_blanks_around_a_screen_do_not_matter(kind: str, name: str) -> None:
    expected, screen = SCREENS[kind][name]
    lines = ["", *(line.ljust(200) for line in screen.split("\n")), *[""] * 20]
    assert says(load_kinds()[kind].match_screen(lines)) == expected


@pytest.mark.parametrize(("kind", "title", "expected"), TITLES)
def test_what_a_title_says(kind: str, title: str, expected: str | None) -> None:
    rule = load_kinds()[kind].match_title(title)
    assert (rule.activity.value if rule else None) == expected


def test_every_rule_that_comes_along_is_needed_by_a_screen_or_title_here() -> None:
    found = {
        (kind, match[0].id)
        for kind, screens in SCREENS.items()
        for _, screen in screens.values()
        if (match := load_kinds()[kind].match_screen(screen.split("\n")))
    } | {
        (kind, rule.id)
        for kind, title, _ in TITLES
        if (rule := load_kinds()[kind].match_title(title))
    }
    there = {(kind.name, rule.id) for kind in load_kinds().values() for rule in kind.rules}
    assert there == found


@given(st.lists(st.text(max_size=80), max_size=40))
def test_no_screen_raises(lines: list[str]) -> None:
    for kind in load_kinds().values():
        kind.match_screen(lines)
        for line in lines:
            kind.match_title(line)


@pytest.mark.parametrize(
    "line", ["░" * 4000, "(" * 4000, "a-" * 2000, "─" * 4000, "[y/n] " * 700, "press enter " * 300]
)
def test_no_rule_goes_back_and_forth_on_long_lines(line: str) -> None:
    # A pattern that does would not come to an end here.
    for kind in load_kinds().values():
        kind.match_screen([line] * 30)
        kind.match_title(line)


# ------------------------------------------------------------------------------------ how it works


def kind_of(*rules: str, head: str = "") -> AgentKind:
    return load_kind(f'name = "x"\n{head}\n' + "\n".join(f"[[rules]]\n{rule}" for rule in rules))


def rule_of(condition: str, *, head: str = "") -> AgentKind:
    return kind_of(f'id = "r"\nactivity = "idle"\n{condition}', head=head)


@pytest.mark.parametrize(
    ("condition", "screen", "matches"),
    [
        ('contains = ["One", "two"]', "two\none", True),
        ('contains = ["one", "two"]', "one", False),
        ('any = ["one", "TWO"]', "xtwo", True),
        ('any = ["one", "two"]', "three", False),
        ('any = ["one"]\nnot = ["Two"]', "one", True),
        ('any = ["one"]\nnot = ["Two"]', "one two", False),
        ("regex = ['^a+$', '^b$']", "x\nb\ny", True),
        ("regex = ['^A$']", "a", False),
        ("regex = ['a']\ncontains = ['b']", "a", False),
        ("regex = ['a']\ncontains = ['b']", "ab", True),
        ("regex = ['.']", "", False),
        ('contains = ["ﬀ"]', "x\nFF\nff", True),
        ('region = "last_line"\nany = ["a"]', "a\nb", False),
        ('region = "last_line"\nany = ["a"]', "b\na\n  \n", True),
        ('region = "last_lines(2)"\nany = ["a"]', "a\nb\n\nc", False),
        ('region = "last_lines(2)"\nany = ["a"]', "a\n\nc", True),
        ('region = "first_lines(2)"\nany = ["a"]', "b\n\na", True),
        ('region = "first_lines(2)"\nany = ["a"]', "b\nc\na", False),
        ('region = "above_prompt"\nany = ["a"]', "a\nb\n> a", True),
        ('region = "above_prompt"\nany = ["a"]', "b\n> a", False),
        ('region = "above_prompt(1)"\nany = ["a"]', "a\nb\n>", False),
        ('region = "above_prompt"\nany = ["a"]', "a\nb", False),
        ('region = "from_prompt"\nany = ["a"]', "> a\nb\n> b\na", True),
        ('region = "from_prompt"\nany = ["a"]', "> a\nb\n> b", False),
        ("prompt = true", "a\n> b", True),
        ("prompt = true", "a", False),
        ("prompt = false", "a", True),
        ("prompt = false", "a\n> b", False),
        ("prompt = false", "", False),
        ('prompt = true\nany = ["a"]', "> b", False),
    ],
)
def test_conditions_and_regions(condition: str, screen: str, matches: bool) -> None:
    kind = rule_of(condition, head="prompt = '^>'")
    assert (kind.match_screen(screen.split("\n")) is not None) is matches


def test_the_line_that_was_found_is_shown() -> None:
    assert rule_of("regex = ['^b+']").match_screen(["a", "bbc", "d"])[1] == "bbc"
    assert rule_of('any = ["x", "D"]').match_screen(["a", "bbc", "d"])[1] == "d"
    assert rule_of('contains = ["BC"]').match_screen(["a", "bbc", "d"])[1] == "bbc"
    assert rule_of("prompt = true", head="prompt = 'a'").match_screen(["a", "b"])[1] == "a"
    assert len(rule_of('any = ["x"]').match_screen(["x" * 5000])[1]) == rules.MAX_EXCERPT


def test_the_highest_priority_decides_then_the_order() -> None:
    kind = kind_of(
        'id = "a"\nactivity = "busy"\nany = ["x"]',
        'id = "b"\nactivity = "idle"\nany = ["x"]\npriority = 2',
        'id = "c"\nactivity = "blocked"\nany = ["x"]\npriority = 2',
        'id = "d"\nactivity = "unknown"\nany = ["y"]\npriority = 3',
        'id = "t"\nactivity = "busy"\nregion = "title"\nany = ["x"]\npriority = 9',
    )
    assert kind.match_screen(["x"])[0].id == "b"
    assert kind.match_title("x").id == "t"
    assert [rule.id for rule in kind.screen_rules] == ["d", "b", "c", "a"]


# ---------------------------------------------------------------------------------- kinds by name


@pytest.mark.parametrize(
    ("argv", "kind"),
    [
        ("claude", "claude"),
        ("/usr/local/bin/claude --continue", "claude"),
        ("env -i -u CLAUDECODE A=b C=/d/codex claude -p", "claude"),
        ("env", "generic"),
        ("npx -y @anthropic-ai/claude-code@latest", "claude"),
        ("npx -p @openai/codex codex", "codex"),
        ("pnpm dlx @openai/codex", "codex"),
        ("node --no-warnings /opt/codex/bin/codex.js", "codex"),
        ("codex exec ls", "codex"),
        ("python -m aider --yes", "aider"),
        ("python3.12 -u -X dev /opt/bin/aider", "aider"),
        ("python -m aider.main", "aider"),
        ("python -c pass claude", "generic"),
        ("python", "generic"),
        ("python worker.py", "generic"),
        ("uvx --from aider-chat aider", "aider"),
        ("uv tool run aider-chat", "aider"),
        ("pipx run aider-chat", "aider"),
        ("nohup nice -n 5 bash -l", "shell"),
        ("sh -c claude", "shell"),
        ("-zsh", "shell"),
        ("cat", "generic"),
        ("", "generic"),
    ],
)
def test_the_program_tells_the_kind(argv: str, kind: str) -> None:
    assert kind_for(argv.split()).name == kind


def test_a_name_goes_before_the_program() -> None:
    assert kind_for(["bash"], "claude") is load_kinds()["claude"]
    assert kind_for(["bash"], "claude-code") is load_kinds()["claude"]
    assert kind_for(["claude"], "generic") is GENERIC
    own = AgentKind("own")
    assert kind_for(["claude"], own) is own


def test_an_unknown_name_is_told_with_those_there_are() -> None:
    with pytest.raises(InvalidSwarm) as caught:
        kind_for([], "claud")
    assert str(caught.value) == (
        "there is no kind 'claud' (did you mean claude?);"
        " there are aider, claude, codex, generic, shell"
    )


@pytest.mark.parametrize("path_object", [True, False])
def test_a_kind_of_ones_own_is_read_from_a_file(tmp_path: Path, path_object: bool) -> None:
    path = tmp_path / "own.toml"
    path.write_text('name = "own"\nquiet = 2\n', encoding="utf-8")
    kind = kind_for(["claude"], path if path_object else str(path))
    assert (kind.name, kind.quiet, kind.rules) == ("own", 2.0, ())


def test_the_kinds_that_come_along_are_read_once_and_can_not_be_changed() -> None:
    kinds = load_kinds()
    assert load_kinds() is kinds
    assert sorted(kinds) == ["aider", "claude", "codex", "generic", "shell"]
    with pytest.raises(TypeError):
        kinds["x"] = GENERIC


def test_no_two_kinds_claim_one_name_or_program() -> None:
    claimed = [
        word
        for kind in load_kinds().values()
        for word in {kind.name, *kind.aliases, *kind.programs}
    ]
    assert len(claimed) == len(set(claimed))


# ---------------------------------------------------------------------------------- what is refused


def test_defaults() -> None:
    kind = load_kind('name = "x"')
    assert kind == AgentKind("x")
    assert (kind.quiet, kind.settle, kind.stuck_after, kind.scrolls) == (1.0, 0.2, 30.0, False)
    assert not kind.tells_idle
    [rule] = rule_of('any = ["A"]').rules
    assert rule == Rule(id="r", activity=Activity.IDLE, any_of=("a",))
    assert rule.region == Region("screen")
    assert rule_of('any = ["A"]').tells_idle


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name =", "k.toml: is not TOML"),
        ("", "k.toml: name: is missing"),
        ('name = "x y"', "k.toml: name: 'x y' is no name"),
        ("name = 1", "k.toml: name: must be a text"),
        ('name = "x"\nquite = 1', "k.toml: quite: unknown key (did you mean quiet?)"),
        ('name = "x"\nzzz = 1', "k.toml: zzz: unknown key"),
        ('name = "x"\nquiet = 0', "k.toml: quiet: must be a number of seconds, more than 0"),
        ('name = "x"\nquiet = true', "k.toml: quiet: must be a number"),
        ('name = "x"\nsettle = nan', "k.toml: settle: must be a number"),
        ('name = "x"\nstuck_after = inf', "k.toml: stuck_after: must be a number"),
        ('name = "x"\nscrolls = 1', "k.toml: scrolls: must be true or false"),
        ('name = "x"\naliases = "y"', "k.toml: aliases: must be a list"),
        ('name = "x"\naliases = [""]', "k.toml: aliases: must be a text"),
        ('name = "x"\nprograms = []', "k.toml: programs: must be a list that is not empty"),
        ('name = "x"\nprompt = "("', "k.toml: prompt: '(' is no regular expression"),
        ('name = "x"\nrules = [1]', "k.toml: rules: must be tables: [[rules]]"),
        ('name = "x"\nrules = 1', "k.toml: rules: must be a list"),
    ],
)
def test_a_wrong_file_is_told_with_its_key(text: str, message: str) -> None:
    with pytest.raises(InvalidSwarm, match=re.escape(message)):
        load_kind(text, where="k.toml")


ONE_MORE = '\n[[rules]]\nid = "r"\nactivity = "busy"\nany = ["a"]'


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("", "k.toml: rules[1].id: is missing"),
        ('id = "r"', "k.toml: rules.r.activity: is missing"),
        ("id = 1", "k.toml: rules[1].id: must be a text"),
        ('id = "r"\nactivity = "idel"', "rules.r.activity: 'idel' is none of busy, idle, blocked"),
        ('id = "r"\nactivity = "idel"', "(did you mean idle?)"),
        ('id = "r"\nactivity = 1', "k.toml: rules.r.activity: must be a text"),
        ('id = "r"\nactivity = "idle"', "k.toml: rules.r: it matches everything"),
        ('id = "r"\nactivity = "idle"\nnot = ["a"]', "k.toml: rules.r: it matches everything"),
        ('id = "r"\nregexp = ["a"]', "rules.r.regexp: unknown key (did you mean regex?)"),
        ('id = "r"\nactivity = "idle"\nregex = ["("]', "rules.r.regex: '(' is no regular"),
        ('id = "r"\nactivity = "idle"\nregex = "a"', "k.toml: rules.r.regex: must be a list"),
        ('id = "r"\nactivity = "idle"\nany = [1]', "k.toml: rules.r.any: must be a text"),
        ('id = "r"\nactivity = "idle"\npriority = 1.5', "rules.r.priority: must be a whole"),
        ('id = "r"\nactivity = "idle"\npriority = true', "rules.r.priority: must be a whole"),
        ('id = "r"\nactivity = "idle"\nregion = "titel"', "(did you mean title?)"),
        ('id = "r"\nactivity = "idle"\nregion = "last_lines"', "write last_lines(n), n from 1 on"),
        ('id = "r"\nactivity = "idle"\nregion = "last_lines(0)"', "write last_lines(n)"),
        ('id = "r"\nactivity = "idle"\nregion = "screen(3)"', "write screen"),
        ('id = "r"\nactivity = "idle"\nregion = "from_prompt"\nany = ["a"]', "no prompt to search"),
        ('id = "r"\nactivity = "idle"\nprompt = true', "k.toml: rules.r.prompt: the kind has none"),
        ('id = "r"\nactivity = "idle"\nany = ["a"]\nlasts = 3', "rules.r.lasts: only what a title"),
        (
            'id = "r"\nactivity = "idle"\nany = ["a"]' + ONE_MORE,
            "k.toml: rules: there are two rules 'r'",
        ),
    ],
)
def test_a_wrong_rule_is_told_with_its_key(rule: str, message: str) -> None:
    with pytest.raises(InvalidSwarm) as caught:
        load_kind(f'name = "x"\n[[rules]]\n{rule}', where="k.toml")
    assert message in str(caught.value)


def test_a_title_has_no_prompt() -> None:
    with pytest.raises(InvalidSwarm, match="a title has no prompt"):
        rule_of('region = "title"\nprompt = true', head="prompt = 'a'")


def test_a_file_that_can_not_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidSwarm, match=r"none\.toml: can't be read"):
        load_kind(tmp_path / "none.toml")
    path = tmp_path / "latin.toml"
    path.write_bytes(b'name = "\xe9"')
    with pytest.raises(InvalidSwarm, match=r"latin\.toml: can't be read"):
        load_kind(path)
    path.write_text("quiet = -1\nname = 'x'", encoding="utf-8")
    with pytest.raises(InvalidSwarm) as caught:
        load_kind(path)
    assert caught.value.where == f"{path}: quiet"


@given(st.text())
def test_any_text_is_a_kind_or_refused(text: str) -> None:
    with contextlib.suppress(InvalidSwarm):
        load_kind(text)


def test_kinds_can_be_copied() -> None:
    for kind in load_kinds().values():
        assert pickle.loads(pickle.dumps(kind)) == kind
