"""Operators' words: all that is wrong with them, and a filter with them put in.

Services check their words once, at their start. A job keeps what its words meant when it was
created: agents get the text that `expand` makes, and need no words.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace

from kfl import ast
from kfl.errors import KflError
from kfl.filter import compile  # noqa: A004, the language's own word
from kfl.parse import parse
from kfl.resolve import IN_WORD, MAX_MACRO_DEPTH, MAX_NODES, check_macro_names, resolve
from kfl.show import show

MAX_MACROS = 256
"""Words of operators; they are all looked at for each filter."""


def problems(macros: Mapping[str, str]) -> list[str]:
    """A sentence for each thing that is wrong, with the word that it is in."""
    if len(macros) > MAX_MACROS:
        return [f"There are {len(macros)} words; at most {MAX_MACROS} are allowed."]
    found: list[str] = []
    trees: dict[str, ast.Node] = {}
    for name, text in macros.items():
        try:
            check_macro_names({name: text})
            trees[name] = parse(text).tree
        except KflError as error:
            found.append(_sentence(name, error))
    circles = [name for name in trees if _reaches_itself(name, trees)]
    found += [f"The word `{name}` is made from itself." for name in circles]
    if found:  # what stands for them is not known
        return found
    now_ms = time.time_ns() // 1_000_000
    for name, tree in trees.items():
        for problem in resolve(tree, macros[name], macros, now_ms).problems:
            # What is wrong in a word inside of it is said about that one.
            if problem.is_error and not problem.message.startswith(IN_WORD):
                found.append(
                    _sentence(
                        name,
                        KflError(problem.message, problem.line, problem.column, problem.suggestion),
                    )
                )
    return found


def expand(text: str, macros: Mapping[str, str]) -> str:
    """The filter without words of operators; as it was written when it has none.

    Raises KflError for a text that cannot be parsed, or that is too large with its words put in.
    """
    tree = parse(text).tree
    whole = _Expansion(macros).expand(tree)
    if whole == tree:
        return text
    expanded = show(whole)
    try:
        parse(expanded)
    except KflError as error:
        raise KflError(
            f"With the words of operators put in: {error.message}", suggestion=error.suggestion
        ) from None
    return expanded


def explain(text: str, macros: Mapping[str, str]) -> str:
    """Filter.explain() of the filter with words of operators put in, where there is room for them.

    Raises KflError for a filter that is wrong.
    """
    compiled = compile(text, macros)
    try:
        return compile(expand(text, macros)).explain()
    except KflError:
        return compiled.explain()


def _sentence(name: str, error: KflError) -> str:
    about = f"`{name[:60]}`"
    if about in error.message and error.line == error.column == 1:  # about the word's name
        return f"{error.message} {error.suggestion}".rstrip()
    return f"In the word {about}: {error}"


def _names(node: ast.Node) -> Iterator[str]:
    waiting = [node]
    while waiting:
        current = waiting.pop()
        if isinstance(current, ast.Name):
            yield current.word
        waiting.extend(ast.children(current))


def _reaches_itself(name: str, trees: Mapping[str, ast.Node]) -> bool:
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        for word in _names(trees[waiting.pop()]):
            if word == name:
                return True
            if word in trees and word not in seen:
                seen.add(word)
                waiting.append(word)
    return False


class _Expansion:
    """Puts words in, and counts what it makes."""

    def __init__(self, macros: Mapping[str, str]) -> None:
        self._macros = macros
        self._open: list[str] = []
        self._nodes = 0

    def expand(self, node: ast.Node) -> ast.Node:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise KflError("The filter is too large once all its words are put in.")
        match node:
            case ast.Name(word=word) if word in self._macros:
                return self._word(word)
            case ast.ListOf(items=items):
                return replace(node, items=self._all(items))
            case ast.Path(base=base):
                return replace(node, base=self.expand(base))
            case ast.Call(receiver=None, name="redact", arguments=arguments):
                return replace(node, arguments=tuple(map(self._path, arguments)))
            case ast.Call(receiver=receiver, arguments=arguments):
                receiver = None if receiver is None else self.expand(receiver)
                return replace(node, receiver=receiver, arguments=self._all(arguments))
            case ast.Unary(operand=operand):
                return replace(node, operand=self.expand(operand))
            case ast.Binary(left=left, right=right):
                return replace(node, left=self.expand(left), right=self.expand(right))
            case ast.Logic():
                return replace(node, operands=tuple(self._operands(node)))
            case ast.Choice(condition=condition, yes=yes, no=no):
                condition, yes, no = self._all((condition, yes, no))
                return ast.Choice(condition, yes, no, node.at)
            case _:
                return node

    def _all(self, nodes: tuple[ast.Node, ...]) -> tuple[ast.Node, ...]:
        return tuple(map(self.expand, nodes))

    def _operands(self, node: ast.Logic) -> Iterator[ast.Node]:
        """A word that joins as the operands are joined is no group of its own."""
        for operand in node.operands:
            expanded = self.expand(operand)
            joins = isinstance(expanded, ast.Logic) and expanded.operator == node.operator
            if joins and isinstance(operand, ast.Name):
                yield from ast.children(expanded)
            else:
                yield expanded

    def _path(self, node: ast.Node) -> ast.Node:
        """A path in redact(): a text in which a word can stand."""
        if isinstance(node, ast.Literal) and isinstance(node.value, str):
            if node.value.strip() in self._macros:
                return replace(node, value=show(self._word(node.value.strip())))
            return node
        return self.expand(node)

    def _word(self, word: str) -> ast.Node:
        if word in self._open or len(self._open) >= MAX_MACRO_DEPTH:
            raise KflError(f"The word `{word}` is made from itself.")
        self._open.append(word)
        try:
            return self.expand(parse(self._macros[word]).tree)
        finally:
            self._open.pop()
