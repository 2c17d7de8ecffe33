"""What holds for every filter: text and tree, reference and SQL, columns that never contradict."""

import duckdb
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

import kfl
from kfl import ast, core, functions
from kfl.batch import Batch
from kfl.parse import parse
from kfl.show import show
from recordings import entry as entry_json
from tests.property.kfl.filters import compiled, filters, trees
from tests.property.kfl.rows import columns_of, columns_of_call, rows, table_of

pytestmark = pytest.mark.timeout(900)  # many filters, each in several ways

SLOW = settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def duck():
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET threads = 1")
    yield connection
    connection.close()


@settings(max_examples=300, deadline=None)
@given(filters)
def test_a_tree_is_what_its_own_text_says(text):
    tree = parse(text).tree
    assert parse(show(tree)).tree == tree


@settings(max_examples=300, deadline=None)
@given(trees)
def test_every_tree_has_a_text(tree):
    try:
        again = parse(show(tree)).tree
    except kfl.KflError as error:
        if "at most" not in error.message:  # the generator may go beyond a limit
            raise
        return
    assert parse(show(again)).tree == again


def _asts(node):
    yield node
    for child in ast.children(node):
        yield from _asts(child)


def test_the_generators_make_every_construct():
    seen = set()

    @settings(max_examples=1500, database=None, derandomize=True, deadline=None)
    @given(filters)
    def look(text):
        for node in _asts(parse(text).tree):
            seen.add(type(node).__name__)
            seen.update([f"{node.name}()"] if isinstance(node, ast.Call) else [])
            seen.update([node.operator] if isinstance(node, ast.Binary | ast.Logic) else [])
            seen.update(type(s).__name__ for s in getattr(node, "steps", ()))
        chosen = compiled(text)
        if chosen is not None:
            below = core.walk(chosen._meaning.tree)
            seen.update(f"core.{type(node).__name__}" for node in below)

    look()
    kinds = {kind.__name__ for kind in ast.Node.__args__}
    cores = {f"core.{kind.__name__}" for kind in core.Core.__args__}
    calls = {f"{name}()" for name in [*functions.FUNCTIONS, *functions.METHODS]}
    signs = {"==", "!=", "<", "<=", ">", ">=", "in", "+", "-", "*", "/", "%", "and", "or"}
    steps = {"Key", "Index", "Each", "Deep"}
    assert not (kinds | cores | calls | signs | steps) - seen


@pytest.mark.timeout(900)
@settings(SLOW, max_examples=10)
@given(
    texts=st.lists(filters, min_size=6, max_size=6), found=st.lists(rows(), min_size=8, max_size=8)
)
def test_sql_says_what_the_reference_says(texts, found, duck):
    table = table_of(found)
    entries = entry_json.objects(table)
    duck.register("entries", table)
    duck.execute("CREATE OR REPLACE TEMP TABLE stored AS SELECT * FROM entries")
    for text in texts:
        chosen = compiled(text)
        if chosen is None:
            continue
        wanted = [chosen.matches(entry) for entry in entries]
        sql = chosen.sql()
        answers = duck.execute(f"SELECT {sql.text} FROM stored", sql.parameters).fetchall()
        got = [answer for (answer,) in answers]
        assert None not in got
        if sql.exact:
            assert got == wanted, text
        else:
            assert all(more or not less for more, less in zip(got, wanted, strict=True)), text


@SLOW
@given(
    st.lists(filters, min_size=8, max_size=8), st.lists(rows(), min_size=6, max_size=6), st.data()
)
def test_columns_never_contradict_the_reference(texts, found, data):
    entries = entry_json.objects(table_of(found))
    columns = columns_of(found)
    hidden = data.draw(st.sets(st.sampled_from(sorted(columns)), max_size=4))
    given_columns = {name: column for name, column in columns.items() if name not in hidden}
    for text in texts:
        chosen = compiled(text)
        if chosen is None:
            continue
        may, must = chosen.bounds(columns if chosen.is_exact else given_columns, len(found))
        assert may.dtype == must.dtype == np.bool_
        for row, entry in enumerate(entries):
            verdict = chosen.matches(entry)
            assert may[row] or not verdict, text
            assert verdict or not must[row], text
            if chosen.is_exact:
                assert may[row] == verdict, text


@SLOW
@given(
    st.lists(filters, min_size=8, max_size=8), st.lists(rows(), min_size=4, max_size=4), st.data()
)
def test_shared_and_late_columns_never_contradict_the_reference(texts, found, data):
    entries = entry_json.objects(table_of(found))
    for row, entry in zip(found, entries, strict=True):
        columns = columns_of_call(row, entry)
        hidden = data.draw(st.sets(st.sampled_from(sorted(columns)), max_size=4))
        given_columns = {name: column for name, column in columns.items() if name not in hidden}
        batch, other = Batch(columns, 1), Batch(given_columns, 1)
        for chosen in filter(None, map(compiled, texts)):
            (may,), (must,) = chosen.bounds(batch if chosen.is_exact else other, 1)
            verdict = chosen.matches(entry)
            assert may or not verdict, chosen
            assert verdict or not must, chosen
            if chosen.is_exact:
                assert may == verdict, chosen


@SLOW
@given(filters, st.lists(rows(), min_size=4, max_size=4))
def test_what_is_known_without_an_entry_is_true_of_entries(text, found):
    chosen = compiled(text)
    if chosen is None:
        return
    wanted = chosen.protocols()
    for entry in entry_json.objects(table_of(found)):
        if chosen.matches(entry) and wanted is not None:
            assert any(kfl.compile(word).matches(entry) for word in wanted), text
        live = {**entry, "record": None}
        del live["record"]
        if chosen.matches(live):
            assert chosen.needs_live, text


anything = st.one_of(
    st.text(max_size=60),
    st.text(alphabet="ab.[]()\"'\\=!<>&|*?:/%+-0123 \nrn", max_size=60),
    st.lists(
        st.sampled_from(
            [
                "and",
                "or",
                "not",
                "in",
                "==",
                "(",
                ")",
                "[",
                "]",
                ".",
                "..",
                ".*",
                "http",
                "request",
                'r"a"',
                '"a"',
                "1",
                "1.5",
                "?",
                ":",
                ",",
                "size",
                "#",
                "//",
                "json()",
                "nil",
                "-",
            ]
        ),
        max_size=14,
    ).map(" ".join),
)


@settings(max_examples=400, deadline=None)
@given(anything)
def test_any_text_gives_a_filter_or_a_sentence(text):
    problem = None
    try:
        chosen = kfl.compile(text)
    except kfl.KflError as error:
        problem = error
    if problem is not None:
        assert problem.message.endswith((".", "?")), problem.message
        assert problem.line >= 1
        assert problem.column >= 1
        assert any(found.is_error for found in kfl.check(text))
        return
    assert chosen.matches({}) in (True, False)
    assert isinstance(chosen.sql().text, str)
    assert not any(problem.is_error for problem in kfl.check(text))


arbitrary = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                ["request", "response", "headers", "protocol", "name", "status", "a", "tls"]
            ),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(
    filters,
    st.dictionaries(
        st.sampled_from(
            ["request", "response", "src", "protocol", "tls", "error", "transport", "record"]
        ),
        arbitrary,
    ),
)
def test_any_json_object_gets_a_verdict(text, entry):
    chosen = compiled(text)
    if chosen is not None:
        assert chosen.matches(entry) in (True, False)
