"""Wireshark's display filters in KFL. Called by `foreign_dialect` for texts that look like one.

https://www.wireshark.org/docs/man-pages/wireshark-filter.html
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from kfl import ast
from kfl.fields import NAMES
from kfl.foreign.translation import (
    MAX_DEPTH,
    NO_ENTRY,
    Condition,
    NotThisLanguageError,
    Translation,
    address,
    both,
    call,
    compare,
    either,
    in_network,
    ip_version,
    negate,
    no_entry,
    path,
    word,
)
from kfl.foreign.wireshark_fields import (
    ABOUT_PACKETS,
    FIELDS,
    PACKET_PREFIXES,
    SEARCHED,
    WORDS,
    Rule,
)
from kfl.words import WORDS as KFL_WORDS

_TOKEN = re.compile(
    r'\s*+(?:(?P<text>[rR]?"(?:\\.|[^"\\])*+"|\'(?:\\.|[^\'\\])*+\')'
    r"|(?P<sign>\|\||&&|===|==|!==|!=|~=|>=|<=|\^\^|[><!~()\[\]{},&|^=])"
    r"|(?P<word>[^\s()\[\]{}\"'&|!<>=~,^]++))"
)

_COMPARISONS = {
    **{"==": "==", "eq": "==", "any_eq": "==", "===": "==", "!=": "!=", "ne": "!=", "!==": "!="},
    **{"all_ne": "!=", ">": ">", "gt": ">", "<": "<", "lt": "<", ">=": ">=", "ge": ">="},
    **{"<=": "<=", "le": "<="},
}
_JOINTS = {"and", "&&", "or", "||", "xor", "^^", ")"}

_NO_SUCH_FIELD = "KFL has no such field"


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # text, sign or word
    text: str
    begin: int
    end: int


class _UnfitError(Exception):
    """A comparison that has no KFL; its text is the reason, as a clause."""


def translate(text: str) -> Translation:
    """The filter in KFL. Raises NotThisLanguageError when it is no display filter."""
    return _Reader(text).read()


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = _tokens(text)
        self._next = 0
        self._depth = 0
        self.done = Translation()

    def read(self) -> Translation:
        self.done.condition = self._either()
        if self._next < len(self._tokens):
            raise NotThisLanguageError
        return self.done

    def _peek(self) -> str:
        """The next token; "" for a text or the end."""
        if self._next >= len(self._tokens) or self._tokens[self._next].kind == "text":
            return ""
        return self._tokens[self._next].text

    def _either(self) -> Condition:
        parts = [self._both()]
        while self._peek() in ("or", "||"):
            self._next += 1
            parts.append(self._both())
        if self._peek() in ("xor", "^^"):
            raise NotThisLanguageError
        return either(parts)

    def _both(self) -> Condition:
        parts = [self._not()]
        while self._peek() in ("and", "&&"):
            self._next += 1
            parts.append(self._not())
        return both(parts)

    def _not(self) -> Condition:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise NotThisLanguageError
        try:
            if self._peek() in ("not", "!"):
                self._next += 1
                return negate(self._not())
            if self._peek() == "(":
                self._next += 1
                inner = self._either()
                if self._peek() != ")":
                    raise NotThisLanguageError
                self._next += 1
                return inner
            return self._relation()
        finally:
            self._depth -= 1

    def _relation(self) -> Condition:
        """Tokens up to the next joint, and what they mean together."""
        begin, level = self._next, 0
        while self._next < len(self._tokens):
            token = self._tokens[self._next]
            if token.kind != "text":
                if level == 0 and token.text in _JOINTS:
                    break
                level += (token.text in ("(", "[", "{")) - (token.text in (")", "]", "}"))
            self._next += 1
        tokens = self._tokens[begin : self._next]
        if not tokens or tokens[0].kind == "text":
            raise NotThisLanguageError
        self.done.count()
        try:
            return self._meaning(tokens)
        except _UnfitError as unfit:
            part = self._text[tokens[0].begin : tokens[-1].end]
            self.done.lose(part, tokens[0].begin, str(unfit))
            return None

    def _meaning(self, tokens: list[_Token]) -> Condition:
        if tokens[0].text in ("any", "all") and len(tokens) > 1:
            raise _UnfitError(_NO_SUCH_FIELD)
        name = tokens[0].text
        if name.partition(".")[0] in _KFL_ROOTS and name not in FIELDS and name not in WORDS:
            return self._as_it_is(tokens)
        if len(tokens) == 1:
            return self._bare(name)
        if len(tokens) == 2 and tokens[1].kind == "word" and name not in FIELDS:
            raise NotThisLanguageError
        operator = tokens[1].text
        if name in NO_ENTRY or name.partition(".")[0] in NO_ENTRY:
            return no_entry(name.partition(".")[0], self.done)
        if operator in ("contains", "matches", "~") and len(tokens) == 3:
            return self._searched(name, operator, _plain(tokens[2]))
        rule = FIELDS.get(name)
        if rule is None:
            raise _UnfitError(_why_not(name))
        if operator in _COMPARISONS and len(tokens) == 3:
            return _compared(rule, _COMPARISONS[operator], tokens[2])
        if operator == "in" and len(tokens) > 4 and tokens[2].text == "{":
            return _listed(rule, tokens[3:-1])
        raise _UnfitError(_why_not(name) if "[" in operator or "&" in operator else "")

    def _as_it_is(self, tokens: list[_Token]) -> Condition:
        """KFL among the rest."""
        from kfl.parse import is_readable  # which asks us

        written = self._text[tokens[0].begin : tokens[-1].end]
        if not is_readable(written):
            raise _UnfitError("it is not right in KFL either")
        return ast.Name(written if len(tokens) == 1 else f"({written})")

    def _bare(self, name: str) -> Condition:
        """A protocol, or a field that has to be there."""
        if name in NO_ENTRY:
            return no_entry(name, self.done)
        if name in ("ip", "ipv6", "ip6"):
            return ip_version(4 if name == "ip" else 6)
        if name in ("frame", "eth"):
            return True
        if name in WORDS:
            return word(WORDS[name])
        rule = FIELDS.get(name)
        if rule is None:
            raise _UnfitError(_why_not(name))
        if rule.word == name.partition(".")[0] and rule.kind == "port":
            return word(rule.word)
        return _with_word(rule, either(compare(each, "!=", None) for each in rule.paths))

    def _searched(self, name: str, operator: str, text: str) -> Condition:
        """`contains` and `matches`; the latter ignores case in Wireshark."""
        rule = FIELDS.get(name)
        if rule is None and name in SEARCHED:
            self.done.note(f"`{name} {operator}` looks at the URL, headers and bodies here.")
            rule = Rule(SEARCHED[name], "text", name)
        if rule is None:
            raise _UnfitError(_why_not(name))
        if rule.kind not in ("text", "named"):
            raise _UnfitError("its value is no text in KFL")
        if operator == "contains":
            found = either(call(each, "contains", text) for each in rule.paths)
            return _with_word(rule, found)
        if not _is_regex("(?i)" + text):
            raise _UnfitError("KFL's regexes are RE2's, which has no such form")
        return _with_word(rule, either(call(each, "matches", "(?i)" + text) for each in rule.paths))


_KFL_ROOTS = {name.partition(".")[0] for name in NAMES} | {
    name for name in KFL_WORDS if name not in WORDS
}


def _tokens(text: str) -> list[_Token]:
    found: list[_Token] = []
    position = 0
    end = len(text.rstrip())
    while position < end:
        token = _TOKEN.match(text, position)
        if token is None or token.lastgroup is None:
            raise NotThisLanguageError
        kind = token.lastgroup
        found.append(_Token(kind, token[kind], token.start(kind), token.end()))
        position = token.end()
    return found


def _plain(token: _Token) -> str:
    """The text that a token stands for. Wireshark escapes as C does."""
    if token.kind != "text":
        return token.text
    if token.text[0] in "rR":
        return token.text[2:-1]
    return re.sub(r'\\(["\'\\])', r"\1", token.text[1:-1])


def _why_not(name: str) -> str:
    root = name.partition(".")[0]
    return ABOUT_PACKETS if root in PACKET_PREFIXES else _NO_SUCH_FIELD


def _is_regex(pattern: str) -> bool:
    from kfl.functions import MAX_REGEX_LENGTH, compile_regex  # which parse, as we are asked there

    try:
        compile_regex(pattern[: MAX_REGEX_LENGTH + 1])
    except ValueError:
        return False
    return len(pattern) <= MAX_REGEX_LENGTH


def _with_word(rule: Rule, condition: Condition) -> Condition:
    return both([word(rule.word), condition]) if rule.word else condition


def _compared(rule: Rule, operator: str, token: _Token) -> Condition:
    if rule.kind == "flag":
        return _flag(rule, operator, token)
    if rule.kind == "address":
        return _address(rule, operator, _plain(token))
    value = _value(rule, _plain(token))
    if operator not in ("==", "!=") and isinstance(value, str):
        raise _UnfitError("KFL orders numbers alone")
    return _with_word(rule, _of_paths(rule, operator, value))


def _of_paths(rule: Rule, operator: str, value: object) -> Condition:
    if operator != "!=":
        return either(compare(each, operator, value) for each in rule.paths)
    if len(rule.paths) == 1 or rule.kind == "port":
        return both(compare(each, "!=", value) for each in rule.paths)
    # One of them may be missing, which would make `and` false.
    there = either(compare(each, "!=", None) for each in rule.paths)
    return both([there, negate(either(compare(each, "==", value) for each in rule.paths))])


def _listed(rule: Rule, tokens: list[_Token]) -> Condition:
    """`in {80, 443, 8000..8080}`."""
    items = [_plain(token) for token in tokens if token.text != ","]
    if rule.kind == "address":
        return either(_address(rule, "==", item) for item in items)
    if rule.kind == "flag":
        raise _UnfitError(_NO_SUCH_FIELD)
    ranges = [item.partition("..")[::2] for item in items if ".." in item]
    single = [_value(rule, item) for item in items if ".." not in item]
    parts: list[Condition] = []
    for each in rule.paths:
        if single:
            parts.append(ast.Binary("in", path(each), ast.ListOf(tuple(map(_literal, single)))))
        for first, last in ranges:
            low, high = _value(rule, first), _value(rule, last)
            parts.append(both([compare(each, ">=", low), compare(each, "<=", high)]))
    return _with_word(rule, either(parts))


def _literal(value: object) -> ast.Node:
    assert isinstance(value, bool | int | float | str)
    return ast.Literal(value)


def _flag(rule: Rule, operator: str, token: _Token) -> Condition:
    if operator not in ("==", "!=") or token.text.lower() not in ("0", "1", "true", "false"):
        raise _UnfitError("it is true or false")
    wanted = (token.text.lower() in ("1", "true")) == (operator == "==")
    return _with_word(rule, compare(rule.paths[0], "!=" if wanted else "==", None))


def _address(rule: Rule, operator: str, text: str) -> Condition:
    if operator not in ("==", "!="):
        raise _UnfitError("KFL orders numbers alone")
    sides = [each.partition(".")[0] for each in rule.paths]
    try:
        found = in_network(sides, text)
    except ValueError as error:
        if "/" in text:
            raise _UnfitError(str(error)) from None
        raise _UnfitError("it is no address; compare src.name or dst.name with a name") from None
    if operator == "==":
        return found
    if "/" not in text:
        return both(compare(f"{side}.ip", "!=", address(text)) for side in sides)
    return negate(found)


def _value(rule: Rule, text: str) -> object:
    """What entries have for a value of Wireshark's."""
    if rule.kind == "text":
        return text
    number = _number(text)
    if rule.kind == "named":
        if number is None:
            return text
        if number not in rule.names:
            raise _UnfitError("KFL has a name for each value, and none for this one")
        return rule.names[int(number)]
    if number is None:
        raise _UnfitError("its value is a number")
    if rule.kind == "epoch":
        return _whole(number * 1000)
    if rule.kind == "seconds":
        return _duration(number)
    return number


def _number(text: str) -> int | float | None:
    if re.fullmatch(r"-?\d{1,18}", text, re.ASCII):
        return int(text)
    if re.fullmatch(r"0[xX][0-9a-fA-F]{1,15}", text):
        return int(text, 16)
    if re.fullmatch(r"-?\d{1,15}\.\d{1,9}", text, re.ASCII):
        return float(text)
    return None


def _whole(number: int | float) -> int | float:
    return round(number) if abs(number - round(number)) < 1e-6 else number


def _duration(seconds: int | float) -> ast.Node:
    micros = round(seconds * 1_000_000)
    for unit, size in (("s", 1_000_000), ("ms", 1_000), ("us", 1)):
        if micros % size == 0:
            return ast.Call(None, "duration", (ast.Literal(f"{micros // size}{unit}"),))
    raise AssertionError(micros)
