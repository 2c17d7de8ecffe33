"""The functions of the language: how each is checked and what it becomes. `resolve` calls this."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kfl import ast, core, times
from kfl.errors import KflError, did_you_mean
from kfl.parse import parse
from kfl.show import show

if TYPE_CHECKING:
    from kfl.resolve import Resolver

MAX_REGEX_LENGTH = 1_000
"""Characters of a regex; longer ones are lists of words, for which there is `in`."""

MAX_REGEX_BYTES = 1 << 20
"""Memory that RE2 may take for one regex. DuckDB allows 8 MiB, so what passes here passes there."""

MAX_RECORDING_NAME = 253
"""Characters of a name in record(): as of the objects of Kubernetes."""

MAX_LIMIT = 2**31 - 1
"""Of limit(): what a 32-bit integer holds, since it goes into an SQL LIMIT."""

FUNCTIONS = {
    "size": "size(x): characters of a text, elements of a list, keys of a map",
    "now": "now(): the time at which the filter was compiled",
    **{name: f"{name}(n): the time n {name} from now, past when n < 0" for name in times.OFFSETS},
    "datetime": 'datetime("10/19/2021, 6:29:02 PM"): a time, in UTC',
    "timestamp": 'timestamp("2026-03-14T22:00:00Z"): a time, RFC 3339',
    "duration": 'duration("5m"): a length of time',
    "map_get": "map_get(m, k, default): the value of key k of map m, or the default",
    "redact": 'redact("path", ...): always true; hides values, in a job before they are stored',
    "limit": "limit(n): always true; at most n results",
    "record": 'record("name"): the entry belongs to that recording',
}
"""Functions that stand alone, with their help."""

METHODS = {
    "startsWith": "s.startsWith(t): the text begins with t",
    "endsWith": "s.endsWith(t): the text ends with t",
    "contains": "s.contains(t): t is somewhere in the text",
    "matches": "s.matches(re): the regex is found in the text; RE2, not anchored",
    "json": "s.json(): the text decoded as JSON, base64 is tried first",
    "xml": "s.xml(): the text decoded as XML, base64 is tried first",
    "size": "x.size(): the same as size(x)",
}
"""Functions behind a dot, with their help."""

EXAMPLES = {
    "size": "size(request.pathSegments) > 3",
    "now": "timestamp < now()",
    **{name: f"timestamp > {name}(-1)" for name in times.OFFSETS},
    "datetime": 'timestamp >= datetime("10/19/2021, 6:29:02 PM")',
    "timestamp": 'timestamp >= timestamp("2026-03-14T22:00:00Z")',
    "duration": 'elapsedTime > duration("1.5s")',
    "map_get": 'map_get(request.headers, "X-Tenant", "none") == "none"',
    "redact": 'http and redact("request.headers.Authorization", "request.body")',
    "limit": "response.status >= 500 and limit(100)",
    "record": 'record("checkout-500s") and http',
    "startsWith": 'request.path.startsWith("/api/")',
    "endsWith": 'request.path.endsWith(".js")',
    "contains": 'request.headers["User-Agent"].contains("curl")',
    "matches": 'request.path.matches("^/api/v[0-9]+/")',
    "json": 'request.body.json().user.name == "jane"',
    "xml": 'response.body.xml().Envelope.Body.Fault.faultcode == "Client"',
}
"""A filter with each function."""

_TEXTS = frozenset({"text", "number", "list", "any"})

FITS = {
    **dict.fromkeys(("startsWith", "endsWith", "contains", "matches"), _TEXTS),
    **dict.fromkeys(("json", "xml"), frozenset({"text", "any"})),
    "size": frozenset({"text", "list", "map", "any"}),
}
"""Types of values behind which each function makes sense."""

_ARITY = {"now": (0, 0), "map_get": (3, 3), "redact": (1, 1000), "json": (0, 0), "xml": (0, 0)}

NO_ARGUMENTS = {name for name, (_, most) in _ARITY.items() if most == 0}
"""Functions with nothing between their brackets."""


@functools.lru_cache(maxsize=1024)
def compile_regex(pattern: str) -> Any:
    """A regex by RE2, within MAX_REGEX_BYTES. Raises ValueError with RE2's reason."""
    import re2  # few filters need it

    options = re2.Options()
    options.max_mem = MAX_REGEX_BYTES
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0] if error.args else str(error)
        if isinstance(reason, bytes):
            reason = reason.decode("utf-8", "replace")
        raise ValueError(reason) from None


def by_branch(value: core.Core, build: Callable[[core.Core], core.Core]) -> core.Core:
    """What is built of a value; of a choice, of both its values, since each may be of headers."""
    if isinstance(value, core.IfElse):
        yes, no = by_branch(value.yes, build), by_branch(value.no, build)
        return core.IfElse(value.condition, yes, no)
    return build(value)


class Functions:
    """Resolves calls, and keeps what limit(), redact() and record() say about the whole filter."""

    def __init__(self, resolver: Resolver, now_ms: int) -> None:
        self.limit: int | None = None
        self.redactions: list[str] = []
        self.recordings: list[str] = []
        self._resolver = resolver
        self._now_ms = now_ms

    def pattern(self, text: str, at: ast.Position) -> core.Const:
        """A regex, checked by RE2."""
        if len(text) > MAX_REGEX_LENGTH:
            return self._resolver.error(
                at,
                f"The regex has {len(text)} characters; at most {MAX_REGEX_LENGTH} are allowed.",
                "Use x in [...] for many words.",
            )
        try:
            return core.Const(core.Pattern(text, compile_regex(text)))
        except ValueError as reason:
            return self._resolver.error(
                at, f"The regex is not valid: {reason}.", "Its syntax is RE2's."
            )

    def call(self, node: ast.Call) -> core.Core:
        """`name(arguments)`."""
        name, resolver = node.name, self._resolver
        if not self._counted(node, FUNCTIONS[name]):
            return core.Const(True)
        if name == "record":
            return self._record(node)
        if name == "limit":
            return self._limit(node)
        if name == "redact":
            return self._redact(node)
        arguments = [resolver.value(argument) for argument in node.arguments]
        if name == "size":
            return core.Size(arguments[0])
        if name == "map_get":
            holder, key, default = arguments
            return by_branch(holder, lambda map_: core.MapGet(map_, key, default))
        return self._time(node, arguments)

    def method(self, node: ast.Call) -> core.Core:
        """`receiver.name(arguments)`."""
        name, at, resolver = node.name, node.at, self._resolver
        assert node.receiver is not None
        if name not in METHODS:
            hint = f"Write {name}(x)." if name in FUNCTIONS else did_you_mean(name, METHODS)
            hint = hint or f"There are {', '.join(sorted(METHODS))}."
            return resolver.error(at, f"`{name[:80]}` is not a function of a value in KFL.", hint)
        if not self._counted(node, METHODS[name]):
            return core.Const(True)
        receiver = resolver.value(node.receiver)
        if name == "size":
            return core.Size(receiver)
        if name in ("json", "xml"):
            return core.Decode(name, receiver)
        argument = resolver.value(node.arguments[0])
        if name == "matches":
            return self._matches(node, receiver, argument)
        if isinstance(argument, core.Const) and not isinstance(argument.value, str):
            if isinstance(argument.value, core.Pattern):
                return resolver.error(
                    node.arguments[0].at, f"{name}() takes a text.", "Use x.matches() for a regex."
                )
            return resolver.error(
                node.arguments[0].at, f"{name}() takes a text.", "Put it in quotes."
            )
        return core.TextTest(name, receiver, argument)

    def _matches(self, node: ast.Call, receiver: core.Core, argument: core.Core) -> core.Core:
        if isinstance(argument, core.Const):
            if isinstance(argument.value, str):
                argument = self.pattern(argument.value, node.arguments[0].at)
            if isinstance(argument.value, core.Pattern):
                return core.Search(receiver, argument.value)
            if argument.value is True:  # a regex that was wrong
                return argument
        return self._resolver.error(
            node.arguments[0].at,
            "matches() takes a regex that is written in the filter.",
            'Write x.matches("^/api/").',
        )

    def _counted(self, node: ast.Call, form: str) -> bool:
        least, most = _ARITY.get(node.name, (1, 1))
        if node.name == "size":
            least = most = 0 if node.receiver is not None else 1
        if least <= len(node.arguments) <= most:
            return True
        self._resolver.error(
            node.at, f"{node.name}() has {len(node.arguments)} arguments.", f"Its form is {form}."
        )
        return False

    def _text(self, node: ast.Node, function: str) -> str | None:
        """A text that is written in the filter; None after an error."""
        value = self._resolver.value(node)
        if isinstance(value, core.Const) and isinstance(value.value, str):
            return value.value
        self._resolver.error(
            node.at,
            f"{function}() takes a text that is written in the filter.",
            "Put it in quotes.",
        )
        return None

    def _record(self, node: ast.Call) -> core.Core:
        name = self._text(node.arguments[0], "record")
        if name is None:
            return core.Const(True)
        if not 1 <= len(name) <= MAX_RECORDING_NAME:
            return self._resolver.error(
                node.arguments[0].at,
                f"The name of a recording has 1 to {MAX_RECORDING_NAME} characters.",
                _like("record"),
            )
        self.recordings.append(name)
        return core.Record(name)

    def _limit(self, node: ast.Call) -> core.Core:
        value = self._resolver.value(node.arguments[0])
        number = value.value if isinstance(value, core.Const) else None
        if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= MAX_LIMIT:
            return self._resolver.error(
                node.arguments[0].at,
                f"limit() takes a whole number from 1 to {MAX_LIMIT}.",
                _like("limit"),
            )
        self.limit = number if self.limit is None else min(self.limit, number)
        return core.Const(True)

    def _redact(self, node: ast.Call) -> core.Core:
        for argument in node.arguments:
            path = self._text(argument, "redact")
            if path is None:
                continue
            try:
                tree = parse(path).tree
            except KflError as error:
                message = f"`{path[:80]}` is not a path: {error.message}"
                self._resolver.error(argument.at, message, error.suggestion)
                continue
            if _is_redactable(tree):
                self._redact_path(tree, argument.at, path)
            else:
                self._resolver.error(argument.at, f"`{path[:80]}` is not a path.", _REDACT_EXAMPLE)
        return core.Const(True)

    def _redact_path(self, tree: ast.Node, at: ast.Position, path: str) -> None:
        before = len(self._resolver.problems)
        value = self._resolver.value(tree)
        problems = self._resolver.problems[before:]
        # Positions inside of the text mean nothing to who reads the filter.
        for offset, problem in enumerate(problems):
            self._resolver.problems[before + offset] = type(problem)(
                problem.is_error, at.line, at.column, problem.message, problem.suggestion
            )
        if any(problem.is_error for problem in problems):  # a doubt hides no less
            return
        paths = _redacted_paths(value)
        if not paths:
            self._resolver.error(
                at, f"`{path[:80]}` cannot be redacted.", "Name a path of the entry."
            )
        for found in paths:
            if _is_below_a_body(found):
                self._resolver.error(
                    at,
                    f"`{path[:80]}` is nowhere: a body is a text, with nothing below it.",
                    "Write request.body.json() or request.body.xml() before the steps.",
                )
        self.redactions += map(show, paths)

    def _time(self, node: ast.Call, arguments: list[core.Core]) -> core.Core:
        name = node.name
        if name == "now":
            return core.Const(self._now_ms, "time")
        argument = arguments[0]
        at = node.arguments[0].at
        value = argument.value if isinstance(argument, core.Const) else None
        try:
            if name in times.OFFSETS:
                if isinstance(value, bool) or not isinstance(value, int | float):
                    raise ValueError(f"{name}() takes a number that is written in the filter.")
                return core.Const(times.from_now(name, value, self._now_ms), "time")
            if not isinstance(value, str):
                raise ValueError(f"{name}() takes a text that is written in the filter.")
            if name == "duration":
                return core.Const(times.parse_duration(value), "duration")
            parse = times.parse_timestamp if name == "timestamp" else times.parse_datetime
            return core.Const(parse(value), "time")
        except ValueError as error:
            return self._resolver.error(at, str(error), _like(name))


def _like(function: str) -> str:
    """An example, where that says best what would be right."""
    return f"Write it as in {EXAMPLES[function]}."


_REDACT_EXAMPLE = 'Write one as in redact("request.body") or redact("request.body.json().user").'


def _is_redactable(node: ast.Node) -> bool:
    """A name, steps, json() and xml(): nothing else leads to values of an entry."""
    while not isinstance(node, ast.Name):
        if isinstance(node, ast.Path):
            node = node.base
        elif isinstance(node, ast.Call) and node.name in ("json", "xml") and node.receiver:
            node = node.receiver
        else:
            return False
    return True


def _redacted_paths(value: core.Core) -> list[ast.Node]:
    """The places of an entry from which a value comes, without aliases; none if it is no path."""
    match value:
        case core.Select(steps=(core.Key(name=name), *steps)):
            return [ast.Path(ast.Name(name), tuple(steps)) if steps else ast.Name(name)]
        case core.Guarded(value=inner):
            return _redacted_paths(inner)
        case core.Down(base=base, steps=steps):
            return [ast.Path(path, steps) for path in _redacted_paths(base)]
        case core.Decode(kind=kind, text=text):
            return [ast.Call(path, kind, ()) for path in _redacted_paths(text)]
        case _:
            found = [_redacted_paths(part) for part in core.children(value)]
            return [path for paths in found for path in paths] if all(found) else []


def _is_below_a_body(path: ast.Node) -> bool:
    return (
        isinstance(path, ast.Path)
        and isinstance(path.base, ast.Name)
        and path.base.word in ("request", "response")
        and path.steps[0] == ast.Key("body")
        and len(path.steps) > 1
    )
