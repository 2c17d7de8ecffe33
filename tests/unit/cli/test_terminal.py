import json

from services.cli.terminal import print_json, print_table, printable, say


def test_what_came_from_the_wire_cannot_move_the_cursor():
    assert printable("\x1b[2J\x07a\nb\x9b1m") == "\\x1b[2J\\x07a\\nb\\x9b1m"
    assert printable(None) == ""
    assert printable("käse ✓") == "käse ✓"
    assert len(printable("x" * 1000)) == 120
    assert printable("x" * 1000, 1000) == "x" * 1000


def test_a_table_shows_cells_as_they_are(capsys):
    print_table(("A", "B"), [("[red]x[/red]", "\x1b[31m"), (None, 7)], title="[b]")
    out = capsys.readouterr().out
    assert "[red]x[/red]" in out
    assert "\x1b" not in out
    assert "[b]" in out
    assert "7" in out


def test_a_table_in_a_pipe_is_not_cut_at_80_columns(capsys):
    print_table(("PATH", "END"), [("/" + "x" * 100, "end")])
    out = capsys.readouterr().out
    assert "x" * 100 in out
    assert "end" in out


def test_a_narrow_terminal_shows_every_column(capsys, monkeypatch):
    from rich.console import Console

    from services.cli import terminal

    monkeypatch.setattr(terminal, "console", lambda: Console(width=40, force_terminal=False))
    row = ("a-name", "storage limited", "x" * 90, "a reason that is " + "l" * 60)
    print_table(("NAME", "STATE", "PATH", "REASON"), [row])
    line = capsys.readouterr().out.splitlines()[3]
    assert line.split(maxsplit=4) == ["a-name", "storage", "limited", "x" * 31 + "…", row[-1]]


def test_json_is_one_line_on_stdout_and_what_is_said_is_on_stderr(capsys):
    print_json({"a": ["ä\n"]})
    say("beside it")
    out, err = capsys.readouterr()
    assert out.count("\n") == 1
    assert json.loads(out) == {"a": ["ä\n"]}
    assert err == "beside it\n"
