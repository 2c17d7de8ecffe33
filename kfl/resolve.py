"""Gives a tree its meaning: looks up names, functions and operators' words, computes constants.

`filter` calls `resolve` once for each filter. All problems are collected, so that `check` can show
them together; what is wrong becomes a constant and the rest goes on.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from kfl import ast, core, meant
from kfl.doubts import doubts
from kfl.errors import Diagnostic, KflError, did_you_mean
from kfl.fields import NAMES, Field
from kfl.foreign import foreign_dialect
from kfl.functions import FUNCTIONS, METHODS, Functions, by_branch
from kfl.parse import parse
from kfl.show import show, show_steps, show_text
from kfl.slips.written import RESERVED
from kfl.values import MISSING, arithmetic
from kfl.words import WORDS

MAX_MACRO_DEPTH = 16
"""Operators' words inside operators' words; also what ends a word that is made from itself."""

MAX_NODES = 20_000
"""Nodes after all operators' words are put in: a few of them can double many times."""

MAX_PROBLEMS = 50
"""Diagnostics of one filter; more help nobody."""

NEARLY = 0.8
"""How alike a key is to a known one, from 0 to 1, when it is taken for a slip of the pen."""

OPEN_ROOTS = ("request", "response")
"""What is below these is not in the catalogue alone: each protocol has its own."""

IN_WORD = "In the word "
"""How what is wrong inside of an operators' word begins."""

_ARITHMETIC = ("+", "-", "*", "/", "%")

_MACRO_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


@dataclass(slots=True)
class Meaning:
    """What resolve() found."""

    tree: core.Core
    problems: list[Diagnostic] = field(default_factory=list)
    limit: int | None = None
    redactions: tuple[str, ...] = ()
    recordings: tuple[str, ...] = ()
    doubts: Callable[[], list[Diagnostic]] = list
    """What is never true, or always: for who wants to read it, since it takes as long as the rest.

    Only for a filter without errors.
    """


def resolve(tree: ast.Node, text: str, macros: Mapping[str, str], now_ms: int) -> Meaning:
    """The meaning of a parsed filter; errors among `problems`, nothing is raised."""
    resolver = Resolver(text, macros, now_ms)
    meaning = resolver.condition(tree)
    calls = resolver.functions
    return Meaning(
        meaning,
        resolver.problems,
        calls.limit,
        tuple(dict.fromkeys(calls.redactions)),
        tuple(dict.fromkeys(calls.recordings)),
        lambda: doubts(meaning, tree, resolver.place),
    )


class Resolver:
    """Goes down a tree once."""

    def __init__(self, text: str, macros: Mapping[str, str], now_ms: int) -> None:
        self.problems: list[Diagnostic] = []
        self.functions = Functions(self, now_ms)
        self._text = text
        self._macros = macros
        self._open_macros: list[str] = []
        self._macro_at = ast.START  # where the outermost of them stands
        self._foreign: tuple[KflError | None] | None = None  # once it was asked for
        self._nodes = 0
        self._places: dict[int, tuple[core.Core, ast.Node]] = {}  # by id(), kept with the node

    def error(self, at: ast.Position, message: str, suggestion: str = "") -> core.Const:
        """Keep an error; the result stands for the value that could not be made."""
        self._problem(Diagnostic(True, at.line, at.column, message, suggestion))
        return core.Const(True)

    def warn(self, at: ast.Position, message: str, suggestion: str = "") -> None:
        """Keep a warning."""
        self._problem(Diagnostic(False, at.line, at.column, message, suggestion))

    def _problem(self, problem: Diagnostic) -> None:
        if self._open_macros:  # it points to the word in the filter, and says where in the word
            inside = f"`{self._open_macros[-1]}`, line {problem.line}, column {problem.column}"
            problem = Diagnostic(
                problem.is_error,
                self._macro_at.line,
                self._macro_at.column,
                f"{IN_WORD}{inside}: {problem.message}",
                problem.suggestion,
            )
        if len(self.problems) < MAX_PROBLEMS and problem not in self.problems:
            self.problems.append(problem)

    # ------------------------------------------------------------------ conditions and values

    def condition(self, node: ast.Node) -> core.Core:
        """A node whose truth is asked for."""
        found = self.value(node)
        if isinstance(found, core.Const) and isinstance(found.value, core.Pattern):
            return self.error(
                node.at,
                "A regex alone says nothing.",
                f"Compare it, as in request.path == {show(node)}",
            )
        return found

    def place(self, made: core.Core) -> ast.Node | None:
        """The node of the text from which a node was made."""
        found = self._places.get(id(made))
        return found[1] if found else None

    def value(self, node: ast.Node) -> core.Core:
        """Any node."""
        made = self._value(node)
        if not self._open_macros:
            self._places[id(made)] = (made, node)
        return made

    def _value(self, node: ast.Node) -> core.Core:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            if self._nodes == MAX_NODES + 1:
                self.error(
                    node.at,
                    "The filter is too large once all its words are put in.",
                    "Use fewer of them.",
                )
            return core.Const(True)
        match node:
            case ast.Literal(value=literal):
                return core.Const(literal)
            case ast.Regex(pattern=pattern, at=at):
                return self.functions.pattern(pattern, at)
            case ast.ListOf():
                return self._list(node)
            case ast.Name():
                return self._name(node)
            case ast.Path():
                return self._path(node)
            case ast.Call(receiver=None, name=name, at=at) if name not in FUNCTIONS:
                hint = f"Write x.{name}(...)." if name in METHODS else did_you_mean(name, FUNCTIONS)
                names = f"Functions are {', '.join(sorted(FUNCTIONS))}."
                message = f"`{name[:80]}` is not a function of KFL."
                return self._unknown(at, name, message, hint or names)
            case ast.Call(receiver=None):
                return self.functions.call(node)
            case ast.Call():
                return self.functions.method(node)
            case ast.Unary(operator="not", operand=operand):
                return core.Not(self.condition(operand))
            case ast.Unary(operand=operand, at=at):
                return self._arithmetic("-", core.Const(0), self.value(operand), at)
            case ast.Binary():
                return self._binary(node)
            case ast.Logic(operator=operator, operands=operands):
                parts = tuple(self.condition(operand) for operand in operands)
                return core.All(parts) if operator == "and" else core.Some(parts)
            case ast.Choice(condition=condition, yes=yes, no=no):
                return core.IfElse(self.condition(condition), self.value(yes), self.value(no))

    def _list(self, node: ast.ListOf) -> core.Core:
        items = tuple(
            self._unquoted(item, word)
            if (word := meant.bare_text(item, self._knows))
            else self.value(item)
            for item in node.items
        )
        constants = [item.value for item in items if isinstance(item, core.Const)]
        if len(constants) == len(items):
            return core.Const(tuple(constants))
        for item, written in zip(items, node.items, strict=True):
            if isinstance(item, core.Const) and isinstance(item.value, core.Pattern):
                return self.error(
                    written.at, "A regex stands only in a list of constants.", "Compare it alone."
                )
        return core.Items(items)

    def _binary(self, node: ast.Binary) -> core.Core:
        hyphened = meant.hyphened(node, self._knows)
        if hyphened is not None:
            return self.error(
                node.at,
                "A name with a hyphen in it stands in brackets; `-` alone takes away.",
                f"Write {show(hyphened)}.",
            )
        operator = node.operator
        left, right = self.value(node.left), self._right_of(node)
        if operator in _ARITHMETIC:
            self._doubt_date(node)
            self._no_pattern(node.left, left, operator)
            self._no_pattern(node.right, right, operator)
            return self._arithmetic(operator, left, right, node.at)
        left, right = _in_unit_of(left, right), _in_unit_of(right, left)
        if operator == "in":
            self._no_pattern(node.left, left, operator)
            self._no_pattern(node.right, right, operator)
            if isinstance(right, core.Const) and not isinstance(right.value, tuple):
                return self.error(
                    node.right.at,
                    "`in` looks into a list or a map.",
                    'Write, for example, request.method in ["GET", "HEAD"]; '
                    "for a part of a text, x.contains(y).",
                )
            return by_branch(right, lambda holder: core.Within(left, holder))
        if operator not in ("==", "!="):
            self._no_pattern(node.left, left, operator)
            self._no_pattern(node.right, right, operator)
        self._check_record(node, left, right)
        return core.Compare(operator, left, right)

    def _doubt_date(self, node: ast.Binary) -> None:
        """`2026-03-14`, which is 2026 minus 3 minus 14."""
        match node:
            case ast.Binary(
                "-",
                ast.Binary("-", ast.Literal(int() as year), ast.Literal(int() as month)),
                ast.Literal(int() as day),
            ) if 1970 <= year <= 2200 and 1 <= month <= 12 and 1 <= day <= 31:
                self.warn(
                    node.at,
                    "This takes the month and the day away from the year: it is no date.",
                    f'Write timestamp("{year}-{month:02}-{day:02}T00:00:00Z").',
                )
            case _:
                pass

    def _right_of(self, node: ast.Binary) -> core.Core:
        """The right side; where a comparison has an unknown word there, quotes were forgotten."""
        word = "" if node.operator in _ARITHMETIC else meant.bare_text(node.right, self._knows)
        return self._unquoted(node.right, word) if word else self.value(node.right)

    def _unquoted(self, node: ast.Node, word: str) -> core.Const:
        near = did_you_mean(word, [*NAMES, *WORDS, *self._macros])
        advice = f"Put text into quotes: {show_text(word[:80])}. {near}".rstrip()
        message = f"`{word[:80]}` is not a word or a field of KFL."
        return self._unknown(node.at, word, message, advice)

    def _knows(self, word: str) -> bool:
        return word in self._macros or word in WORDS or word in NAMES

    def _no_pattern(self, node: ast.Node, value: core.Core, operator: str) -> None:
        if isinstance(value, core.Const) and isinstance(value.value, core.Pattern):
            self.error(node.at, f"A regex cannot stand beside `{operator}`.", "Use == or !=.")

    def _check_record(self, node: ast.Binary, left: core.Core, right: core.Core) -> None:
        named = core.Select((core.Key("record"),))
        if left == named or right == named:
            self.warn(
                node.at,
                "Comparing `record` does not choose which recordings are read.",
                'Write record("name").',
            )

    # ------------------------------------------------------------------ arithmetic

    def _arithmetic(
        self, operator: str, left: core.Core, right: core.Core, at: ast.Position
    ) -> core.Core:
        left, right = _in_unit_of(left, right), _in_unit_of(right, left)
        if not (isinstance(left, core.Const) and isinstance(right, core.Const)):
            return core.Arithmetic(operator, left, right)
        result = arithmetic(operator, left.value, right.value)
        if result is MISSING or isinstance(result, core.Pattern):
            return self.error(
                at, "This cannot be computed.", "Use numbers, and do not divide by 0."
            )
        unit = _unit_of_result(operator, left.unit, right.unit)
        if operator == "-" and left.unit == right.unit == "time":
            self.warn(
                at,
                "A time minus a time is a duration; hours(1) is the time an hour from now.",
                'Write hours(-1) for an hour ago, or now() - duration("1h").',
            )
        return core.Const(result, unit)

    # ------------------------------------------------------------------ names

    def _name(self, node: ast.Name) -> core.Core:
        word = node.word
        if word in self._macros:
            return self._macro(node)
        if word in WORDS:
            return core.Word(word)
        if word in NAMES:
            self._no_entry_has(NAMES[word], word, node.at)
            return self.field(NAMES[word], ())
        if word in FUNCTIONS:
            return self.error(node.at, f"`{word}` is a function.", f"Write {word}(...).")
        return self._unknown(node.at, word, f"`{word}` is not a word or a field of KFL.")

    def _unknown(self, at: ast.Position, name: str, message: str, advice: str = "") -> core.Const:
        if len(self.problems) >= MAX_PROBLEMS:
            return core.Const(True)
        if self._foreign is None:
            self._foreign = (foreign_dialect(self._text),)
        (foreign,) = self._foreign
        if foreign and not self._open_macros:
            return self.error(
                ast.Position(foreign.line, foreign.column), foreign.message, foreign.suggestion
            )
        return self.error(at, message, advice or meant.name(name, self._macros))

    def _macro(self, node: ast.Name) -> core.Core:
        word = node.word
        if word in self._open_macros or len(self._open_macros) >= MAX_MACRO_DEPTH:
            return self.error(
                node.at, f"The word `{word}` is made from itself.", "Take it out of its own text."
            )
        if not self._open_macros:
            self._macro_at = node.at
        self._open_macros.append(word)
        try:
            return self.condition(parse(self._macros[word]).tree)
        except KflError as error:
            return self.error(
                ast.Position(error.line, error.column), error.message, error.suggestion
            )
        finally:
            self._open_macros.pop()

    def _path(self, node: ast.Path) -> core.Core:
        if not isinstance(node.base, ast.Name):
            base = self.value(node.base)
            if isinstance(base, core.TESTS) or (
                isinstance(base, core.Const) and not isinstance(base.value, tuple)
            ):
                return self.error(
                    node.at,
                    f"`{show(node.base)[:60]}` has nothing below it.",
                    "Steps follow a field, as in request.path.",
                )
            return by_branch(base, lambda value: below(value, node.steps))
        root = node.base.word
        if root in self._macros:
            return self.error(
                node.at,
                f"`{root}` is a word that operators defined; it has nothing below it.",
                "Write it alone.",
            )
        return self._selector(node, root)

    def _selector(self, node: ast.Path, root: str) -> core.Core:
        keys = [root]
        for step in node.steps:
            if not isinstance(step, ast.Key) or "." in step.name:
                break
            keys.append(step.name)
        for length in range(len(keys), 0, -1):
            found = NAMES.get(".".join(keys[:length]))
            if found is None:
                continue
            rest = node.steps[length - 1 :]
            self._no_entry_has(found, root, node.at)
            if length == 1 and len(keys) > 1 and root in OPEN_ROOTS:
                self._doubt(node.at, root, keys[1])
            if not rest or (found.is_open and self._may_go_below(found, rest)):
                return self.field(found, rest)
            if found.paths[0].split(".")[0] in OPEN_ROOTS and not found.guard:
                return self.field(found, rest)
            break
        name = root + show_steps(node.steps)
        dotted = ".".join(keys)
        if root in WORDS and root not in NAMES:
            return self._unknown(
                node.at, dotted, f"`{root}` is a word about the protocol; it has nothing below it."
            )
        if root in NAMES or any(known.startswith(root + ".") for known in NAMES):
            return self._unknown(node.at, dotted, f"An entry has no field `{name[:80]}`.")
        return self._unknown(node.at, root, f"`{root}` is not a word or a field of KFL.")

    def _doubt(self, at: ast.Position, root: str, key: str) -> None:
        """Any path is allowed below a message; one that is nearly a known field may be a slip."""
        known = {name.split(".")[1]: name for name in NAMES if name.startswith(root + ".")}
        near = difflib.get_close_matches(key[:100], known, 1, NEARLY)
        if near and key not in known:
            self.warn(
                at,
                f"No protocol is known to have `{root}.{key[:80]}`.",
                f"Did you mean {known[near[0]]}?",
            )

    def _no_entry_has(self, found: Field, word: str, at: ast.Position) -> None:
        if found.absent:
            self.warn(at, f"No entry has `{word}`: {found.absent}.", "Take it out.")

    def _may_go_below(self, found: Field, rest: tuple[ast.Step, ...]) -> bool:
        """Below request, response, labels and lists anything; below src and the like wildcards."""
        if found.name in ("src", "dst", "node", "protocol", "error"):
            return isinstance(rest[0], ast.Each | ast.Deep)
        return True

    def field(self, found: Field, rest: tuple[ast.Step, ...]) -> core.Core:
        """The value of a catalogued field and the steps below it."""
        if found.name == "tls" and not rest:
            return core.Word("tls")
        below = rest if found.how in ("one", "first") else ()
        parts = tuple(core.Select((*_steps(path), *below), found.unit) for path in found.paths)
        value: core.Core
        match found.how:
            case "one":
                value = parts[0]
            case "first":
                value = core.First(parts)
            case "all":
                value = core.Gather(parts)
                if rest:
                    value = core.Down(value, rest)
            case "present" | "success":
                tests: list[core.Core] = [core.Word(found.guard)] if found.guard else []
                tests.append(core.Present(parts[0]))
                if found.how == "success":
                    tests.append(core.Not(core.Present(parts[1])))
                return core.All(tuple(tests))
            case "sum":
                value = core.Arithmetic("+", parts[0], parts[1])
            case _:  # a rate: so many in so many microseconds, as so many a second
                many = core.Arithmetic("*", parts[0], core.Const(1_000_000))
                value = core.Arithmetic("/", many, parts[1])
        return core.Guarded(found.guard, value) if found.guard else value


def check_macro_names(macros: Mapping[str, str]) -> None:
    """Raises KflError for a word that cannot be one, or that KFL has already."""
    for name in macros:
        if not _MACRO_NAME.match(name):
            raise KflError(
                f"`{name[:60]}` cannot be a word.", suggestion="Use letters, digits and _."
            )
        if name in WORDS or name in NAMES or name in FUNCTIONS or name in RESERVED:
            raise KflError(f"The word `{name}` exists already.", suggestion="Choose another name.")


def below(value: core.Core, steps: tuple[ast.Step, ...]) -> core.Core:
    """The value at a path below a value."""
    match value:
        case core.Select(steps=before, unit=unit):
            return core.Select((*before, *steps), unit)
        case core.Guarded(word=word, value=inner):
            return core.Guarded(word, below(inner, steps))
        case _:
            return core.Down(value, steps)


def _steps(path: str) -> tuple[ast.Step, ...]:
    return tuple(ast.Each() if part == "*" else ast.Key(part) for part in path.split("."))


def _unit(value: core.Core) -> str:
    match value:
        case core.Select(unit=unit) | core.Const(unit=unit):
            return unit
        case core.Guarded(value=inner) | core.Arithmetic(left=inner):
            return _unit(inner)
        case _:
            return ""


def _in_unit_of(value: core.Core, other: core.Core) -> core.Core:
    """A duration, in milliseconds, beside a field in microseconds becomes microseconds."""
    if isinstance(value, core.Const) and value.unit == "duration" and _unit(other) == "us":
        assert isinstance(value.value, int | float)
        scaled = value.value * 1000
        whole = round(scaled) if abs(scaled - round(scaled)) < 1e-9 else scaled
        return core.Const(whole, "us")
    return value


def _unit_of_result(operator: str, left: str, right: str) -> str:
    if operator in "+-":
        if left == right == "time":
            return "duration"
        if "time" in (left, right):
            return "time"
        return left or right
    if "duration" in (left, right) and left != right and "time" not in (left, right):
        return "duration"
    return ""
