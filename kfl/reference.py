"""Writes docs/kfl.md, the reference of the language, from its own tables: `make docs` runs this.

What is said in words here is what no table knows. Lines in ```kfl and cells under "example" are
filters; a test compiles them all.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence

from kfl import functions, macros, parse, resolve
from kfl.fields import CATALOGUE, Field
from kfl.functions import EXAMPLES, FUNCTIONS, METHODS
from kfl.operators import LEVELS
from kfl.words import WORDS

_INTRODUCTION = """
# KFL

KFL is the language of filters: it decides what a recording keeps and what a query returns. A
filter is asked about an *entry*, a call as a JSON object, and is true or false for it.

```kfl
response.status == 500 and src.name == "checkout"
http and request.path.startsWith("/api/") and elapsedTime > 200
dns and response.code == "NXDOMAIN"
record("checkout-500s") and request.headers["User-Agent"] == r"^curl/"
```

`recorder kfl check`, `explain` and `match` try a filter, `recorder kfl complete` says what can
come next, and `recorder ask` without a statement opens a prompt that does so while you type.

This page is made by `make docs` from the tables that the language itself uses.
"""

_LITERALS = """
## Literals

| literal | what it is | example |
|---|---|---|
| `nil`, `null` | no value | `error == nil` |
| `true`, `false` | truth | `tls == true` |
| `42`, `-3`, `3.14`, `1e6` | numbers; whole ones are exact to 64 bits | `response.status == 404` |
| `"text"`, `'text'` | text, with `\\"` `\\'` `\\\\` `\\n` `\\r` `\\t` `\\uXXXX` | \
`request.path == '/it\\'s'` |
| `r"regex"`, `r'regex'` | regular expression in RE2's syntax, searched anywhere in the value | \
`request.path == r"^/v[0-9]+/"` |
| `[a, b]` | list | `response.status in [502, 503, 504]` |

Keywords are lower case. `#` and `//` begin a comment that ends with the line. An empty filter is
true.
"""

_OPERATORS = """
## Operators

Loosest first; what stands on one level binds alike, from left to right.
"""

_PRECEDENCE = """
`and` binds tighter than `or`: the first of these is the second. `recorder kfl check` warns where
both stand beside each other without parentheses, and where `not` is applied to the left side of a
comparison alone.

```kfl
dns or http and response.status == 500
dns or (http and response.status == 500)
not (response.status == 200)
```
"""

_SELECTORS = """
## Selectors

A selector walks an entry, key by key.

| step | what it takes | example |
|---|---|---|
| `.name` | the value of a key | `request.path == "/"` |
| `["key"]` | the same, for keys that are no names | `request.headers["User-Agent"] == r"curl"` |
| `[0]` | the element of a list with a number, from 0 | `request.pathSegments[1] == "users"` |
| `.*` | every element of a list, every value of a map | `response.answers.*.ip == "10.0.0.1"` |
| `..name` | every value with that key, however deep | `request..name == "example.com"` |

Names of headers match without regard to case; every other key is exact.

**Lists and wildcards compare by *any*.** `x.* == v`: some element is equal. `x.* != v`: no
element is equal. `x.* > v`: some element is greater. A list beside a list compares as a whole.

```kfl
dns_questions == "example.com"
request.pathSegments == ["api", "users"]
response.answers.*.ttl > 3600
```

**Missing is no error.** The smallest comparison, call or bare selector that touches a missing
value is false, and the rest of the filter goes on. So the first of these keeps DNS entries, which
have no status; `x != 1` is false when `x` is missing, and `!(x == 1)` is true then.

```kfl
response.status == 500 or dns
response.status != 200
!(response.status == 200)
```

**Bare values are tested for truth.** `nil`, `false`, `""`, 0, a negative number and an empty list
are false; everything else is true.

```kfl
error
request.headers.Authorization and not response.body
```

**Comparing.** A number beside a text is compared as a number when the text is one, else as text.
`<`, `<=`, `>` and `>=` compare numbers, and texts that are numbers. Beside a regex, `==` searches
in the value's text. Whole numbers divide to whole numbers, cut towards zero; what cannot be
computed is missing.

```kfl
request.headers["Content-Length"] > 1000
response.status == r"^5"
```
"""

_WORDS = """
## Protocol words

A word is true for the entries of a protocol. Words belong to the language, they are not replaced
in the text. A gRPC, GraphQL or WebSocket entry is also `http`, and every entry over TCP is also
`tcp`.
"""

_FUNCTIONS = """
## Functions

Functions that test a text take a list or a wildcard by *any*, and the text of a number.
"""

_TIMES = """
## Times

`now()` is fixed when the filter is compiled. `seconds(n)` to `years(n)` are the time so far from
now, in the past when `n` is negative. A time compares with another time, or with whole
milliseconds since 1970, as `timestamp` has them. Times are in UTC. `datetime()` may have
milliseconds; `duration()` takes `d`, `h`, `m`, `s`, `ms`, `us` and `ns`, and fits fields in
milliseconds and in microseconds.

```kfl
timestamp >= hours(-1)
timestamp >= timestamp("2026-03-14T22:00:00Z")
timestamp < timestamp("2026-03-14T23:00:00.5+01:00")
timestamp > datetime("10/19/2021, 6:29:02.801 PM")
timestamp > now() - duration("1h30m")
elapsed_time > duration("250ms")
timestamp > 1773525600000
```
"""

_EFFECTS = """
## What a filter asks for beside entries

`redact()`, `limit()` and `record()` may stand anywhere in a filter.

- `redact("path", …)` is always true. The values at these paths are replaced with `[REDACTED]`: in a
  job on the node, before anything leaves it, and in a query in what is returned. Octets of a packet
  cannot be replaced by name, so a job that redacts cuts the payload of its packets.
- `limit(n)` is always true. There are at most `n` results; of several limits the smallest counts.
  In a job it counts the calls for which a stream is recorded, over all nodes of a run; streams that
  are recorded go on. One agent is exact. Calls that match on several at the same moment can be too
  many: at the very worst each agent takes `n`.
- `record("name")` is true for entries of that recording. An unknown name is an error that names
  the nearest.

Without `record()` a filter ranges over live traffic, with it over the recordings it names and
live traffic. Where every way to be true goes through `record()`, live traffic is not read: it is
for the second of these, not for the first. `record` is empty there. Live traffic is there while
someone watches that statement, and for some minutes after.

```kfl
((record("a") or record("b")) and tls) or tls
(record("a") or record("b")) and tls
record("a") and redact("request.headers.Cookie", "request.body.json().password") and limit(50)
```
"""

_FIELDS = """
## Fields

Types are text, number, bool, list, map, or any when it varies. A field with a column is read
without the rest of its entry, which is quick. Anything may be asked for below `request`,
`response`, labels and other maps and lists; elsewhere an unknown name is an error.

`src.name` and `dst.name` are the best name known for that peer: service, else pod, else DNS name.

### Of every entry
"""

_ABSENT = """
### Without a value

These names are understood, and missing in every entry, for the reason that stands with each.
"""

_DIALECTS = """
## Both dialects

There are two generations of KFL, and one grammar reads both; they may be mixed. KFL1 is `http and
response.status == 500`. KFL2 has the syntax of CEL, `http && status_code >= 500`, and flat names,
each of which stands for a value under its own protocol and is missing under all others.

```kfl
http and response.status >= 500
http && status_code >= 500
src.pod.metadata.name == "cart-0" or src.pod.name == "cart-0" or src.pod == "cart-0"
elapsedTime > 200 or elapsed_time > 200000
```

Where references of the two differ, this holds:

| matter | here | elsewhere |
|---|---|---|
| `and` beside `or` | `and` first | KFL1: no precedence, from the right |
| missing value | the smallest condition is false | KFL1: the whole filter is false |
| whole numbers | exact to 64 bits | KFL1: six digits |
| protocol words | words of the language | KFL1: text that is replaced |
"""

_RUNNING = """
## How it runs

A filter has one meaning and several ways to run, all tested against the first: over an entry;
over columns of calls while capturing, before an entry is built; as SQL over Parquet, with values
always as parameters; as bounds of time and columns that say which files are worth reading; and as
bounds of transports, ports and peers that say which packets are. The last two, and columns, may
say yes too often, never no wrongly; then the entry itself is asked. Regexes run in RE2, so none
takes exponential time.
"""

_ERRORS = """
## Errors

What is wrong is told with its line and column, and with what would be right: an unknown word,
function or field with the nearest names, a slip of the pen, a filter of another program
(Wireshark, tcpdump) with its translation where there is one. `recorder kfl check` tells all of
them, warnings too.
"""


def reference() -> str:
    """The whole page, as Markdown."""
    parts = [
        _INTRODUCTION,
        _LITERALS,
        _OPERATORS,
        _operators(),
        _PRECEDENCE,
        _SELECTORS,
        _WORDS,
        _words(),
        _FUNCTIONS,
        _functions(),
        _TIMES,
        _EFFECTS,
        _FIELDS,
        _fields(field for field in CATALOGUE if not field.protocols and not field.absent),
        *_protocols(),
        _ABSENT,
        _fields(field for field in CATALOGUE if field.absent),
        _DIALECTS,
        _macros(),
        _ERRORS,
        _RUNNING,
        _limits(),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _operators() -> str:
    rows = [
        (str(level), " ".join(map(_code, each.spellings)), each.meaning, _code(each.example))
        for level, operators in enumerate(LEVELS, 1)
        for each in operators
    ]
    return _table(("level", "operator", "meaning", "example"), rows)


def _words() -> str:
    return _table(
        ("word", "meaning"), [(_code(word.name), word.meaning) for word in WORDS.values()]
    )


def _functions() -> str:
    rows = []
    for name, about in (*FUNCTIONS.items(), *METHODS.items()):
        form, _, meaning = about.partition(": ")
        rows.append((_code(form), meaning, _code(EXAMPLES[name])))
    return _table(("function", "meaning", "example"), sorted(rows))


def _fields(fields: Iterable[Field]) -> str:
    """A table of fields; a column without any cell is left out."""
    headers = ("field", "type", "meaning", "also", "column")
    rows = [
        (
            _code(field.name),
            field.type,
            f"{field.meaning}; {field.absent}" if field.absent else field.meaning,
            " ".join(map(_code, _others(field))),
            _code(field.column) if field.column else "",
        )
        for field in fields
    ]
    kept = [number for number in range(len(headers)) if any(row[number] for row in rows)]
    return _table([headers[n] for n in kept], [[row[n] for n in kept] for row in rows])


def _others(field: Field) -> tuple[str, ...]:
    """Other spellings, or the paths that a name of KFL2 stands for."""
    paths = tuple(path for path in field.paths if path != field.name)
    return field.aliases or (paths if field.guard else ())


def _protocols() -> Iterator[str]:
    """A section for each word that fields belong to, in the order of the words."""
    named = {name for field in CATALOGUE if not field.absent for name in field.protocols}
    for word in WORDS.values():
        if word.name in named:
            yield f"### {word.name}"
            yield _fields(
                field for field in CATALOGUE if word.name in field.protocols and not field.absent
            )


def _macros() -> str:
    return f"""## Words of operators

Who runs the services can add words, each a filter with a name: `--macros`, `RECORDER_MACROS` or,
in the Helm chart, `tap.customMacros`, a JSON object or a file with one. A word may use other
words. At most {macros.MAX_MACROS} words, {resolve.MAX_MACRO_DEPTH} inside each other.

```json
{{"https": "tls and (http or http2)"}}
```"""


def _limits() -> str:
    rows = [
        ("characters of a filter", parse.MAX_LENGTH),
        ("levels of its tree", parse.MAX_DEPTH),
        ("brackets open at once", parse.MAX_NESTING),
        ("nodes, with operators' words put in", resolve.MAX_NODES),
        ("digits of a number", parse.MAX_DIGITS),
        ("characters of a regex", functions.MAX_REGEX_LENGTH),
        ("octets of memory of a regex", functions.MAX_REGEX_BYTES),
        ("characters in record()", functions.MAX_RECORDING_NAME),
        ("limit()", functions.MAX_LIMIT),
    ]
    return "## Limits\n\n" + _table(("of", "at most"), [(of, f"{most:,}") for of, most in rows])


def _code(text: str) -> str:
    return f"`{text}`"


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join("| " + " | ".join(map(_cell, cells)) + " |" for cells in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(reference())
