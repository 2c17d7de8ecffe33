import subprocess
import sys
import time

import pytest

import kfl


def test_times_are_fixed_when_the_filter_is_compiled():
    found = kfl.compile("timestamp <= now()")
    before = time.time_ns() // 1_000_000
    assert found.matches({"timestamp": before - 60_000})
    assert not found.matches({"timestamp": before + 60_000})


def test_the_recording_of_an_entry_can_be_given():
    found = kfl.compile('record("a") and http')
    entry = {"protocol": {"name": "http"}}
    assert found.matches(entry, "a")
    assert not found.matches(entry, "b")
    assert not found.matches(entry)
    assert found.matches({**entry, "record": "a"})
    assert kfl.compile("mine", {"mine": 'record == "a"'}).matches(entry, "a")


@pytest.mark.parametrize(
    ("text", "recordings", "live"),
    [
        ("http", (), True),
        ('record("a")', ("a",), False),
        ('record("b") and tls or record("a")', ("b", "a"), False),
        ('((record("a") or record("b")) and tls) or tls', ("a", "b"), True),
        ('not record("a")', ("a",), True),
        ('record("a") and limit(3)', ("a",), False),
        ('record("a") or limit(3)', ("a",), True),
        ('record("a") ? tls : false', ("a",), False),
        ('record("a") ? tls : dns', ("a",), True),
        ('record("a") and record("a")', ("a",), False),
        ('record == "a"', (), False),
        ("false", (), False),
    ],
)
def test_recordings_and_live_traffic(text, recordings, live):
    found = kfl.compile(text)
    assert found.recordings() == recordings
    assert found.needs_live is live


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("http", {"http"}),
        ("http and response.status == 500", {"http"}),
        ("status_code >= 500", {"http"}),
        ("http and grpc", {"grpc"}),
        ("http or dns", {"http", "dns"}),
        ("(http or dns) and dns", {"dns"}),
        ("dns ? true : redis", {"dns", "redis"}),
        ("size(redis_key) > 3", {"redis"}),
        ("false", set()),
    ],
)
def test_protocols_that_can_match(text, words):
    assert kfl.compile(text).protocols() == words


@pytest.mark.parametrize(
    "text",
    [
        "response.status == 500",
        "not http",
        "http or src.port == 1",
        "not (status_code == 1)",
        "true",
        "(status_code == 1) == false",
    ],
)
def test_protocols_that_cannot_be_told(text):
    assert kfl.compile(text).protocols() is None


def test_limits_and_redactions_count_wherever_they_stand():
    found = kfl.compile(
        'not limit(5) or limit(3) and redact("request.query.id", "status_code", "request.body")'
        ' and redact("request.body", "src.pod", "request.headers[\'X-Key\']")'
    )
    assert found.limit == 3
    assert found.redactions == (
        "request.queryString.id",
        "request.query.id",
        "response.status",
        "request.body",
        "src.pod.name",
        'request.headers["X-Key"]',
    )
    assert kfl.compile("http").limit is None
    assert kfl.compile("http").redactions == ()


def test_explains_itself():
    text = 'http and (status_code >= 500 or not dns) and (tls ? true : src.pod == "a")'
    lines = kfl.compile(text).explain().splitlines()
    assert lines[0] == "all of"
    assert lines[1].startswith("  http")
    assert any("pod name of who asked" in line for line in lines)


def test_values_are_parameters_and_never_text():
    value = "x'; DROP TABLE entries; --"
    text = f'request["{value}"] == "{value}" and request.headers["{value}"].contains("{value}")'
    sql = kfl.compile(text + f' and record("{value}")').sql({value: f"really {value}"})
    assert "DROP" not in sql.text
    assert sql.text.count("?") == len(sql.parameters)
    assert f"really {value}" in sql.parameters
    assert sql.exact


def test_the_same_filter_has_the_same_sql():
    text = "request.headers.a == 1 and request.questions.*.name == 'x'"
    assert kfl.compile(text).sql() == kfl.compile(text).sql()


@pytest.mark.parametrize(
    "text",
    [
        f"request.a.*.b == {list(range(2000))}",
        " + ".join(["requestSize"] * 95) + " > 1",
        "map_get(" * 30 + "request.headers" + ', "a", request.b)' * 30 + " == 1",
        'map_get(request.headers, "a", ' * 30 + "request.b" + ")" * 30 + " == 1",
    ],
)
def test_sql_that_would_be_too_large_asks_the_reference(text):
    sql = kfl.compile(text).sql()
    if "map_get" in text:
        assert not sql.exact
        assert len(sql.text) < 200_000
        return
    assert (sql.text, sql.parameters, sql.exact) == ("TRUE", [], False)


def test_importing_the_language_is_light():
    code = (
        "import sys, kfl\n"
        "kfl.compile('http and request.path == r\"a\"').sql()\n"
        "heavy = {'pyarrow', 'duckdb', 'numpy', 'grpc', 'services', 'recordings'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_field_of_the_catalogue_can_be_used():
    for field in kfl.fields.CATALOGUE:
        for name in (field.name, *field.aliases):
            found = kfl.compile(f"{name} == 1 or {name}")
            assert found.matches({}) is False
            assert found.sql().text
            assert name.split(".")[0] in found.explain()


def test_columns_of_the_catalogue_exist():
    from recordings.schema import ENTRIES

    columns = {field.column for field in kfl.fields.CATALOGUE if field.column}
    assert columns <= {*ENTRIES.names, "record"}


def test_nearest_names_come_first():
    assert kfl.nearest("nightli", ["nightly", "daily", "weekly"])[0] == "nightly"
    assert kfl.nearest("NIGHTLY", ["nightly"]) == ["nightly"]
    assert kfl.nearest("zzz", ["nightly"]) == []


def test_a_doubtful_path_is_redacted_all_the_same():
    found = kfl.compile('redact("request.keys", "request.heders")')
    assert found.redactions == ("request.keys", "request.heders")
    assert len(found.warnings) == 2
