"""The reference: a filter as closures over the JSON object of an entry. `filter` compiles it once.

Two kinds of closure are made: a *getter* gives a value or MISSING, a *test* gives True or False.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from kfl import core
from kfl.values import (
    MISSING,
    Many,
    arithmetic,
    equal,
    find_key,
    ordered,
    searched,
    size,
    text_test,
    truth,
    within,
)
from kfl.words import WORDS, ProtocolWord

Entry: TypeAlias = Mapping[str, Any]
Getter: TypeAlias = Callable[[Any], Any]
Test: TypeAlias = Callable[[Any], bool]

SURE_INTEGER = 2**53
"""Below this, comparing integers and comparing doubles is the same."""


class Matcher:
    """Makes closures. `columns` replaces `select`, to run the same code over values of columns."""

    def test(self, node: core.Core) -> Test:
        """The truth of a node."""
        match node:
            case core.Const(value=value):
                answer = truth(value)
                return lambda _: answer
            case core.Word(name=name):
                return word_test(WORDS[name])
            case core.Record(name=name):
                return lambda entry: entry.get("record") == name
            case core.Not(operand=operand):
                inner = self.test(operand)
                return lambda entry: not inner(entry)
            case core.All(operands=operands):
                return _all([self.test(operand) for operand in operands])
            case core.Some(operands=operands):
                return _some([self.test(operand) for operand in operands])
            case core.IfElse(condition=condition, yes=yes, no=no):
                chosen, if_yes, if_no = self.test(condition), self.test(yes), self.test(no)
                return lambda entry: if_yes(entry) if chosen(entry) else if_no(entry)
            case core.Compare():
                return self._compare(node)
            case core.Within(item=item, container=container):
                return self._within(item, container)
            case core.TextTest(kind=kind, text=text, part=part):
                return self._text_test(kind, text, part)
            case core.Search(text=text, pattern=pattern):
                get = self.get(text)
                return lambda entry: searched(get(entry), pattern)
            case core.Present(value=value):
                get = self.get(value)
                return lambda entry: get(entry) not in (None, MISSING)
            case _:
                get = self.get(node)
                return lambda entry: truth(get(entry))

    def get(self, node: core.Core) -> Getter:
        """The value of a node."""
        match node:
            case core.Const(value=value):
                return lambda _: value
            case core.Select(steps=steps):
                return self.select(steps)
            case core.Down(base=base, steps=steps):
                return _chain(self.get(base), steps, ())
            case core.Guarded(word=word, value=value):
                return self._guarded(word, value)
            case core.First(values=values):
                return _first([self.get(value) for value in values])
            case core.Gather(values=values):
                return _gather([self.get(value) for value in values])
            case core.Items(items=items):
                return _items([self.get(item) for item in items])
            case core.Decode(kind=kind, text=text):
                return self._decode(kind, text)
            case core.Size(of=of):
                get = self.get(of)
                return lambda entry: size(get(entry))
            case core.MapGet():
                return self._map_get(node)
            case core.Arithmetic(operator=operator, left=left, right=right):
                one, other = self.get(left), self.get(right)
                return lambda entry: arithmetic(operator, one(entry), other(entry))
            case core.IfElse(condition=condition, yes=yes, no=no):
                chosen, if_yes, if_no = self.test(condition), self.get(yes), self.get(no)
                return lambda entry: if_yes(entry) if chosen(entry) else if_no(entry)
            case _:
                return self.test(node)

    def select(self, steps: tuple[core.Step, ...]) -> Getter:
        """The value at a path of the entry."""
        return select(steps)

    def _decode(self, kind: str, text: core.Core) -> Getter:
        from kfl.decode import decode  # few filters need the readers of JSON and XML

        get = self.get(text)
        return lambda entry: decode(kind, get(entry))

    def _guarded(self, word: str, value: core.Core) -> Getter:
        guard, get = self.test(core.Word(word)), self.get(value)
        return lambda entry: get(entry) if guard(entry) else MISSING

    def _compare(self, node: core.Compare) -> Test:
        operator, left, right = node.operator, node.left, node.right
        if operator in ("==", "!="):
            return self._equality(operator == "==", left, right)
        one, other = self.get(left), self.get(right)
        # MISSING is no number, so an order with it is false.
        return lambda entry: ordered(operator, one(entry), other(entry))

    def _equality(self, wanted: bool, left: core.Core, right: core.Core) -> Test:
        if isinstance(left, core.Const) and not isinstance(right, core.Const):
            left, right = right, left
        one = self.get(left)
        if isinstance(right, core.Const):
            constant = right.value
            quick = type(constant) is str or (
                type(constant) is int and -SURE_INTEGER < constant < SURE_INTEGER
            )
            if quick and wanted:
                return _equals_quickly(one, constant)
            return lambda entry: (
                (value := one(entry)) is not MISSING and (equal(value, constant) is wanted)
            )
        other = self.get(right)

        def test(entry: Entry) -> bool:
            value, against = one(entry), other(entry)
            if value is MISSING or against is MISSING:
                return False
            return equal(value, against) is wanted

        return test

    def _within(self, item: core.Core, container: core.Core) -> Test:
        one = self.get(item)
        if isinstance(container, core.Const) and isinstance(container.value, tuple):
            return _within_constants(one, container.value)
        other = self.get(container)
        ignore_case = is_headers(container)

        def test(entry: Entry) -> bool:
            value, holder = one(entry), other(entry)
            if value is MISSING or holder is MISSING:
                return False
            return within(value, holder, ignore_case)

        return test

    def _text_test(self, kind: str, text: core.Core, part: core.Core) -> Test:
        one, other = self.get(text), self.get(part)
        return lambda entry: text_test(kind, one(entry), other(entry))

    def _map_get(self, node: core.MapGet) -> Getter:
        holder, key, default = self.get(node.map), self.get(node.key), self.get(node.default)
        ignore_case = is_headers(node.map)

        def get(entry: Entry) -> Any:
            map_, name = holder(entry), key(entry)
            if not isinstance(map_, dict) or type(name) is not str:
                return MISSING
            found = find_key(map_, name, ignore_case)
            return default(entry) if found is MISSING else found

        return get


def is_headers(node: core.Core) -> bool:
    """Whether keys of this map are names of headers."""
    if isinstance(node, core.Guarded):
        return is_headers(node.value)
    return isinstance(node, core.Select) and _are_headers(node.steps)


def _are_headers(steps: tuple[core.Step, ...]) -> bool:
    return len(steps) == 2 and steps[0] in _SIDES and steps[1] == core.Key("headers")


_SIDES = (core.Key("request"), core.Key("response"))


def _equals_quickly(get: Getter, constant: Any) -> Test:
    kind = type(constant)

    def test(entry: Entry) -> bool:
        value = get(entry)
        if type(value) is kind:
            return value == constant  # type: ignore[no-any-return]
        return value is not MISSING and equal(value, constant)

    return test


def _within_constants(get: Getter, constants: tuple[core.Constant, ...]) -> Test:
    kinds = {type(constant) for constant in constants}
    quick = kinds == {str} or (
        kinds == {int} and all(-SURE_INTEGER < each < SURE_INTEGER for each in constants)  # type: ignore[operator]
    )
    kind = kinds.pop() if quick else None
    members = frozenset(constants) if quick else frozenset()

    def test(entry: Entry) -> bool:
        value = get(entry)
        if type(value) is kind:
            return value in members
        return value is not MISSING and within(value, constants, False)

    return test


def _all(tests: list[Test]) -> Test:
    if len(tests) == 2:
        first, second = tests
        return lambda entry: first(entry) and second(entry)

    def test(entry: Entry) -> bool:
        for each in tests:  # noqa: SIM110, a generator would take as long as the tests
            if not each(entry):
                return False
        return True

    return test


def _some(tests: list[Test]) -> Test:
    if len(tests) == 2:
        first, second = tests
        return lambda entry: first(entry) or second(entry)

    def test(entry: Entry) -> bool:
        for each in tests:  # noqa: SIM110, as above
            if each(entry):
                return True
        return False

    return test


def _first(getters: list[Getter]) -> Getter:
    def get(entry: Entry) -> Any:
        for getter in getters:
            value = getter(entry)
            if value is not MISSING:
                return value
        return MISSING

    return get


def _gather(getters: list[Getter]) -> Getter:
    def get(entry: Entry) -> Any:
        found: list[Any] = []
        for getter in getters:
            value = getter(entry)
            for each in value if type(value) is Many else (value,):
                if each is not MISSING and each is not None and each != "":
                    found.append(each)
        return found

    return get


def _items(getters: list[Getter]) -> Getter:
    def get(entry: Entry) -> Any:
        found = [getter(entry) for getter in getters]
        return MISSING if any(value is MISSING for value in found) else found

    return get


# ---------------------------------------------------------------------------------- selectors


def select(steps: tuple[core.Step, ...]) -> Getter:
    """The value at a path of an entry, or MISSING."""
    keys = [step.name for step in steps if isinstance(step, core.Key)]
    if len(keys) == len(steps) <= 3:
        return _header(*keys) if _are_headers(steps[:-1]) else _short(keys)
    return _chain(lambda entry: entry, steps, ())


def _header(side: str, headers: str, name: str) -> Getter:
    """One header. Most filters write its name as clients do, so that is tried before all names."""

    def get(entry: Entry) -> Any:
        try:
            holder = entry[side][headers]
        except (KeyError, TypeError):
            return MISSING
        try:
            return holder[name]
        except KeyError:
            return find_key(holder, name, True)
        except TypeError:
            return MISSING

    return get


def _short(keys: list[str]) -> Getter:
    """The commonest selectors, without a loop; what has no such keys raises: MISSING."""
    if len(keys) == 1:
        (only,) = keys
        return lambda entry: entry.get(only, MISSING)
    if len(keys) == 2:
        first, second = keys

        def get_two(entry: Entry) -> Any:
            try:
                return entry[first][second]
            except (KeyError, TypeError):
                return MISSING

        return get_two
    first, second, third = keys

    def get_three(entry: Entry) -> Any:
        try:
            return entry[first][second][third]
        except (KeyError, TypeError):
            return MISSING

    return get_three


def _chain(get: Getter, steps: tuple[core.Step, ...], before: tuple[core.Step, ...]) -> Getter:
    """`get`, then the steps one by one; in a loop, since a path can be long."""
    walks = [_walk(step, (*before, *steps[:place])) for place, step in enumerate(steps)]

    def after(entry: Entry) -> Any:
        value = get(entry)
        for walk in walks:
            if value is MISSING:
                return MISSING
            value = walk(value)
        return value

    return after


Walk: TypeAlias = Callable[[Any], Any]
"""From a value to what is one step below it; Many where a wildcard stands before or here."""


def _walk(step: core.Step, before: tuple[core.Step, ...]) -> Walk:
    match step:
        case core.Key(name=name):
            return _of_each(_key_taker(name, _are_headers(before)))
        case core.Index(number=number):
            return _of_each(_index_taker(number))
        case core.Each():
            return _each
        case core.Deep(name=name):
            return _deep(name, before)


def _of_each(take: Walk) -> Walk:
    def walk(value: Any) -> Any:
        if type(value) is Many:
            return Many([found for each in value if (found := take(each)) is not MISSING])
        return take(value)

    return walk


def _key_taker(name: str, ignore_case: bool) -> Walk:
    def take(value: Any) -> Any:
        if type(value) is dict or isinstance(value, Mapping):
            return find_key(value, name, ignore_case)
        return MISSING

    return take


def _index_taker(number: int) -> Walk:
    def take(value: Any) -> Any:
        if isinstance(value, list | tuple) and number < len(value):
            return value[number]
        return MISSING

    return take


def _elements(value: Any) -> Any:
    """Elements of a list, values of a map; None for what has none."""
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, list | tuple) else None


def _each(value: Any) -> Any:
    if type(value) is Many:
        return Many([found for each in value for found in _elements(each) or ()])
    found = _elements(value)
    return MISSING if found is None else Many(found)


def _deep(name: str, before: tuple[core.Step, ...]) -> Walk:
    of_headers = _are_headers(before)
    of_message = len(before) == 1 and before[0] in _SIDES

    def walk(value: Any) -> Any:
        found = Many()
        if type(value) is Many:
            for each in value:
                _descend(each, name, found)
            return found
        if _elements(value) is None:
            return MISSING
        headers = value if of_headers else None
        if of_message and isinstance(value, Mapping):
            headers = value.get("headers")
        _descend(value, name, found, headers)
        return found

    return walk


def _descend(top: Any, name: str, found: Many, headers: Any = None) -> None:
    """Adds every value with the key `name`, with a stack of its own since bodies nest deep.

    Keys of the map `headers` match without regard to case.
    """
    waiting = [top]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Mapping):
            here = find_key(value, name, value is headers)
            if here is not MISSING:
                found.append(here)
            waiting.extend(value.values())
        elif isinstance(value, list | tuple):
            waiting.extend(value)


# ---------------------------------------------------------------------------------- words


def word_test(word: ProtocolWord) -> Test:
    """Whether an entry is of a protocol."""
    names = word.names
    if word.transport:
        return _transport_test(word.transport, names)
    if word.encrypted:
        return lambda entry: entry.get("tls") is True or _protocol(entry, "name") in names
    if word.versions or word.abbrs:
        versions, abbrs = word.versions, word.abbrs
        if word.is_both:
            return lambda entry: (
                _protocol(entry, "name") in names
                and _protocol(entry, "abbr") in abbrs
                and _protocol(entry, "version") in versions
            )
        return lambda entry: (
            _protocol(entry, "name") in names
            and (_protocol(entry, "abbr") in abbrs or _protocol(entry, "version") in versions)
        )

    def test(entry: Entry) -> bool:
        try:
            return entry["protocol"]["name"] in names
        except (KeyError, TypeError):
            return False

    return test


def _transport_test(transport: str, names: frozenset[str]) -> Test:
    def test(entry: Entry) -> bool:
        said = entry.get("transport")
        if said is None:
            return _protocol(entry, "name") in names
        return said == transport  # type: ignore[no-any-return]

    return test


def _protocol(entry: Entry, key: str) -> str | None:
    protocol = entry.get("protocol")
    value = protocol.get(key) if isinstance(protocol, Mapping) else None
    return value if isinstance(value, str) else None
