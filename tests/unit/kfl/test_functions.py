import pytest

import kfl


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("method", ("request.method",)),
        ("request.body.json().user.password", ("request.body.json().user.password",)),
        ("response.body.xml()..b", ("response.body.xml()..b",)),
        (
            "request.headers['X-A'].json().a[0].*.b.json()['c d']",
            ('request.headers["X-A"].json().a[0].*.b.json()["c d"]',),
        ),
        ("request.body.json()", ("request.body.json()",)),
        ("dns_total_size", ("requestSize", "responseSize")),
    ],
)
def test_redact_names_places_of_the_entry(path: str, found: tuple[str, ...]) -> None:
    text = f'http and redact("{path}")'
    assert kfl.compile(text).redactions == found
    again = ", ".join(f"'{each}'" for each in found)
    if "'" not in "".join(found):
        assert kfl.compile(f"redact({again})").redactions == found


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("request.path == 1", "is not a path"),
        ("request.body.size()", "is not a path"),
        ("json()", "is not a path"),
        ("size(request)", "is not a path"),
        ("[request].a", "is not a path"),
        ("request.body.json(1)", "json() has 1 arguments"),
        ("http", "cannot be redacted"),
        ("request.body.password", "a body is a text"),
        ("request.body..password", "a body is a text"),
        ("bogus.json().a", "`bogus`"),
        ("a b", "is not a path"),
    ],
)
def test_redact_says_what_is_no_place(path: str, says: str) -> None:
    (problem, *_) = [found for found in kfl.check(f'http and redact("{path}")') if found.is_error]
    assert says in problem.message
    assert (problem.line, problem.column) == (1, 17)
