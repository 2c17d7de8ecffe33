"""The prompt of `recorder ask` without a statement: completion and errors while a person types.

Loaded only then, since prompt_toolkit takes a moment.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import grpc
from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.lexers import Lexer
from prompt_toolkit.styles import Style
from recorder.v1 import query_pb2, query_pb2_grpc

import kfl
from services.cli import statement
from services.cli.terminal import CommandError, printable, say
from services.runtime.channel import open_channel
from services.runtime.errors import UserError

NAMES_SECONDS = 1.0
"""Longest wait for the names of recordings; without them all but record() is completed."""

STYLE = Style.from_dict(
    {
        "keyword": "ansiblue bold",
        "operator": "",
        "word": "ansimagenta",
        "field": "ansicyan",
        "function": "ansiyellow",
        "string": "ansigreen",
        "regex": "ansigreen italic",
        "number": "ansigreen",
        "comment": "ansibrightblack",
        "unknown": "ansired",
        "wrong": "underline",
        "bottom-toolbar": "noreverse",
    }
)


def ask(answer: Callable[[str], None], address: str) -> None:
    """Read statements until Ctrl-D and `answer` each; an error is said, and it goes on.

    `address` is that of the query service, which knows the names of the recordings.
    """
    macros = statement.read_macros(os.environ.get("RECORDER_MACROS", ""))
    names: Sequence[str] = ()
    session: PromptSession[str] = PromptSession(
        history=_history(),
        lexer=_Highlighter(macros),
        completer=_Completer(lambda: names, macros),
        complete_while_typing=True,
        style=STYLE,
        bottom_toolbar=lambda: problem(session.default_buffer.text, macros),
    )
    say("Tab completes, Ctrl-C clears the line, Ctrl-D ends.")
    while True:
        names = _recordings(address) or names
        try:
            text = session.prompt("kfl> ")
        except KeyboardInterrupt:
            continue
        except EOFError:
            return
        if not text.strip():
            continue
        try:
            answer(text)
        except (CommandError, UserError) as error:
            say(str(error))
        except KeyboardInterrupt:
            say("")


def problem(text: str, macros: Mapping[str, str]) -> str:
    """Return what is wrong with a statement that is being typed, with its place; "" for nothing."""
    wrong = _wrong(text, tuple(macros.items()))
    if wrong is None:
        return ""
    message = " ".join(filter(None, (wrong.message, wrong.suggestion)))
    return f"column {wrong.column}: {statement.printable_message(message)}"


@functools.lru_cache(maxsize=16)
def _wrong(text: str, macros: tuple[tuple[str, str], ...]) -> kfl.Diagnostic | None:
    """Return the first error; the toolbar and the highlighter ask about the same text."""
    return next((found for found in kfl.check(text, dict(macros)) if found.is_error), None)


def _recordings(address: str) -> list[str]:
    """Return the names of the recordings; none when the service does not answer."""
    try:
        with open_channel(address) as channel:
            stub = query_pb2_grpc.QueryServiceStub(channel)
            found = stub.ListRecordings(
                query_pb2.ListRecordingsRequest(), timeout=NAMES_SECONDS
            ).recordings
            return [recording.name for recording in found]
    except grpc.RpcError:
        return []


def _history() -> History:
    """Return the statements of before, for nobody else to read; of this time only if that fails."""
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    try:
        folder = Path(state).expanduser() / "recorder"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / "ask_history"
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
    except (OSError, RuntimeError) as error:
        say(f"Statements are not kept for the next time: {error}")
        return InMemoryHistory()
    return FileHistory(str(path))


class _Completer(Completer):
    """Offers what `kfl.complete` finds."""

    def __init__(self, names: Callable[[], Sequence[str]], macros: Mapping[str, str]) -> None:
        self._names = names
        self._macros = macros

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterable[Completion]:
        """Yield the candidates at the caret."""
        del complete_event
        caret = document.cursor_position
        found = kfl.complete(document.text, caret, recordings=self._names(), macros=self._macros)
        rest = document.text[caret : found.end]  # which stays: only what is before is replaced
        for candidate in found.candidates:
            yield Completion(
                candidate.insert.removesuffix(rest),
                start_position=found.start - caret,
                display=printable(candidate.insert),
                display_meta=printable(candidate.help or candidate.kind),
            )


class _Highlighter(Lexer):
    """Colours the pieces that `kfl.tokens` finds, and underlines where the first error is."""

    def __init__(self, macros: Mapping[str, str]) -> None:
        self._macros = macros

    def lex_document(self, document: Document) -> Callable[[int], StyleAndTextTuples]:
        """Return what gives the styled pieces of a line."""
        styles = _styles(document.text, self._macros)
        lines = document.lines
        starts = [0]
        for line in lines:
            starts.append(starts[-1] + len(line) + 1)

        def styled(number: int) -> StyleAndTextTuples:
            line = lines[number] if number < len(lines) else ""
            return list(zip(styles[starts[min(number, len(lines))] :], line, strict=False))

        return styled


def _styles(text: str, macros: Mapping[str, str]) -> list[str]:
    """Return the style of each character."""
    styles = [""] * len(text)
    wrong = _wrong(text, tuple(macros.items()))
    place = -1
    if wrong is not None:
        lines = text.split("\n")[: wrong.line - 1]
        place = sum(len(line) + 1 for line in lines) + wrong.column - 1
    for token in kfl.tokens(text, macros):
        style = f"class:{token.kind}"
        if token.start <= place < token.end:
            style += " class:wrong"
        styles[token.start : token.end] = [style] * (token.end - token.start)
    return styles
