import pytest

from kfl import core
from kfl.kinds import GONE, Kind, kind_of, worlds
from kfl.parse import parse
from kfl.resolve import resolve


def tree(text):
    return resolve(parse(text).tree, text, {}, 0).tree


@pytest.mark.parametrize(
    ("text", "word", "kind"),
    [
        ("src.port", "dns", Kind("number", 0, 65_535)),
        ("requestSize", "dns", Kind("number", 0)),
        ("timestamp", "dns", Kind("number")),
        ("src.name", "dns", Kind("text")),
        ("request.bodyTruncated", "http", Kind("bool")),
        ("request.method", "http", Kind("text")),
        ("request.method", "dns", GONE),
        ("method", "amqp", GONE),
        ("response.status", "http", Kind("number", 0, 999)),
        ("response.status", "mysql", Kind("scalar")),
        ("response.status", "dns", GONE),
        ("request.headers", "http", Kind("map")),
        ("request.headers.Host", "http", None),
        ("request.headers.Host", "dns", GONE),
        ("request.anything", "dns", None),
        ("src.*", "dns", None),
        ("size(request.path)", "http", Kind("number", 0)),
        ("size(src.port)", "dns", GONE),
        ("response.status + 1", "http", Kind("number")),
        ("request.path + request.path", "http", None),
        ("request.path + redis_key", "http", GONE),
        ("request.body.json().a", "dns", GONE),
        ("(tls ? request.path : method)", "dns", GONE),
        ("(tls ? request.path : src.port)", "dns", None),
        ('map_get(request.headers, "a", 1)', "dns", GONE),
    ],
)
def test_what_values_can_be(text, word, kind):
    node = tree(text)
    (one,) = {kind_of(node, world) for world in worlds(node) if word in world} or {
        kind_of(node, frozenset({word}))
    }
    assert one == kind


def test_worlds_tell_apart_what_a_filter_asks_for_and_no_more():
    assert set(worlds(core.Word("dns"))) == {frozenset(), frozenset({"dns"})}
    both = set(worlds(tree("http and grpc")))
    assert both == {frozenset(), frozenset({"http"}), frozenset({"http", "grpc"})}
    assert worlds(tree("src.name")) == (frozenset(),)
