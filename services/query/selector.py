"""The value of a KFL selector as text to count by. Called by counts and difference.

A text, a number and a boolean are one text. A list, and what a wildcard finds, is each different
one of these in it. Whatever else there is (nothing, nil, a map) has none. The same is said twice:
in Python for an entry, and in SQL for rows.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from kfl import KflError, core
from kfl.fields import NAMES
from kfl.match import Matcher
from kfl.parse import parse
from kfl.resolve import check_macro_names, resolve
from kfl.sql.conditions import Conditions
from kfl.sql.pieces import Piece, all_of, parameter, put
from kfl.sql.quick import InJson
from kfl.sql.values import MISSING, Either, Keyed, Plain, Value, to_json
from kfl.values import Many, text_of

Protocols = Callable[[], Collection[str] | None]


@dataclass(frozen=True, slots=True)
class Texts:
    """A selector in SQL, in two steps, so that what takes time is done once for each row."""

    value: Piece
    """Over ENTRIES and `record`."""
    kind: str
    """As in kfl.sql.values; json and many may be several texts."""
    sure: Piece
    """Rows for which the value is right."""

    @property
    def is_list(self) -> bool:
        """`texts` is a list, never empty, with a NULL for none; otherwise a scalar."""
        return self.kind in ("json", "many")

    def texts(self, value: str) -> str:
        """Return SQL for what is counted by, over a column with the value."""
        if self.kind == "json":
            return (
                f"CASE WHEN {_begins(value, '[')} THEN {_of_array(value)} ELSE [{_of(value)}] END"
            )
        if self.kind == "many":
            # Most have one, for which no list needs to be taken apart.
            one = f"len({value}) = 1 AND NOT {_begins(f'{value}[1]', '[')}"
            each = f"CASE WHEN {_begins('x', '[')} THEN {_of_array('x')} ELSE [{_of('x')}] END"
            several = f"flatten(list_transform(coalesce({value}, []), lambda x: {each}))"
            return f"CASE WHEN {one} THEN [{_of(f'{value}[1]')}] ELSE {_different(several)} END"
        return value


class Selector:
    """A selector that was found right."""

    def __init__(self, text: str, macros: Mapping[str, str]) -> None:
        """Raises KflError for what is no selector."""
        check_macro_names(macros)
        meaning = resolve(parse(text).tree, text, macros, 0)
        for problem in meaning.problems:
            if problem.is_error:
                raise KflError(problem.message, problem.line, problem.column, problem.suggestion)
        if isinstance(meaning.tree, core.Const) or meaning.recordings:
            raise KflError(
                "This is the same for every entry, or no field at all.",
                1,
                1,
                "Name a field, such as response.status.",
            )
        if text in NAMES and NAMES[text].type == "map":
            raise KflError(
                f"{text} is a map, which is no value to count by.",
                1,
                1,
                f'Name something in it, as in {text}["name"].',
            )
        self.text = text
        self.warnings = [f"{each.message} {each.suggestion}".rstrip() for each in meaning.problems]
        """What is doubtful about it, as sentences."""
        self._node = meaning.tree
        self._get = Matcher().get(meaning.tree)

    def texts_of(self, entry: Mapping[str, Any]) -> list[str]:
        """Return the different texts of an entry's value."""
        return list(dict.fromkeys(_texts(self._get(entry))))

    def sql(self, protocols: Protocols) -> Texts | None:
        """Return the same in SQL, or None where SQL cannot say it."""
        found = _plain(Conditions({}, protocols).value(self._node))
        return None if found is None else Texts(_quick(found), found.kind, found.sure)


def _texts(value: Any) -> list[str]:
    if isinstance(value, Many):
        return [text for each in value for text in _texts(each)]
    items = value if isinstance(value, list | tuple) else [value]
    return [text for item in items if (text := text_of(item)) is not None]


def _plain(value: Value) -> Plain | None:
    """Return a value of one kind; None for what SQL does not know. A map has no text."""
    match value:
        case Plain():
            return value
        case Keyed():
            return MISSING
        case Either(condition=condition, yes=yes, no=no):
            one, other = _plain(yes), _plain(no)
            if one is None or other is None:
                return None
            return _chosen(condition, one, other)
        case _:
            return None


def _chosen(condition: Piece, one: Plain, other: Plain) -> Plain | None:
    if other == MISSING:
        made, kind = put("CASE WHEN {} THEN {} END", condition, one.piece), one.kind
    elif one == MISSING:
        made, kind = put("CASE WHEN {} THEN NULL ELSE {} END", condition, other.piece), other.kind
    else:
        if one.kind != other.kind:
            as_json = to_json(one), to_json(other)
            if not isinstance(as_json[0], Plain) or not isinstance(as_json[1], Plain):
                return None
            one, other = as_json[0], as_json[1]
        pieces = (condition, one.piece, other.piece)
        made, kind = put("CASE WHEN {} THEN {} ELSE {} END", *pieces), one.kind
    sure = all_of([one.sure, other.sure])
    return Plain(kind, made, sure=sure)


def _quick(value: Plain) -> Piece:
    """Return the value; of a list in JSON by one look where it is there, which it mostly is."""
    hint = value.hint
    if value.kind != "many" or not isinstance(hint, InJson) or hint.path.count("[*]") != 1:
        return value.piece
    there = put("TRY(json_extract({}, {}))", hint.column, parameter(hint.path))
    return put("CASE WHEN len({}) > 0 THEN {} ELSE {} END", there, there, value.piece)


def _begins(value: str, character: str) -> str:
    return f"starts_with(CAST({value} AS VARCHAR), '{character}')"


def _of(value: str) -> str:
    """SQL for the text of a JSON scalar; NULL for anything else."""
    text = f"CAST({value} AS VARCHAR)"
    return (
        f"CASE WHEN starts_with({text}, '\"') THEN"
        # Nearly every text stands in JSON as it is.
        f" CASE WHEN contains({text}, '\\') THEN {value}->>'$'"
        f" ELSE substr({text}, 2, length({text}) - 2) END"
        f" WHEN {text} IN ('true', 'false') THEN {text}"
        f" WHEN json_type({value}) IN ('UBIGINT', 'BIGINT') THEN {text}"
        f" WHEN json_type({value}) IN ('DOUBLE', 'HUGEINT', 'UHUGEINT')"
        f" THEN CAST(CAST({text} AS DOUBLE) AS VARCHAR) END"
    )


def _of_array(value: str) -> str:
    return _different(f"list_transform(json_extract({value}, '$[*]'), lambda y: {_of('y')})")


def _different(texts: str) -> str:
    """SQL for a list without its NULLs and repetitions, with one NULL where nothing is left."""
    otherwise = "lambda z: CASE len(z) WHEN 0 THEN [NULL] ELSE z END"
    return f"list_transform([list_distinct({texts})], {otherwise})[1]"
