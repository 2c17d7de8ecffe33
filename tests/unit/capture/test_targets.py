"""What a file of targets lets through, and how it changes."""

import pytest

import kfl
from services.capture.assignments import Assignment, Assignments
from services.capture.targets import ALL_PODS, LOOK_SECONDS, TargetsFile, read
from services.runtime.errors import UserError


def peer(pod="", namespace=""):
    return {"name": pod, "namespace": namespace, "pod": {"name": pod, "namespace": namespace}}


def is_captured(targets, src, dst, statement="true"):
    entry = {"protocol": {"name": "http"}, "src": peer(*src), "dst": peer(*dst)}
    return kfl.compile(targets.narrow(statement)).matches(entry)


CART, SHOP, DNS, OUTSIDE = ("cart-1", "shop"), ("web-1", "shop"), ("dns-1", "kube-system"), ("", "")


@pytest.mark.parametrize("text", ["{}", '{"regex": ".*"}', '{"namespaces": []}'])
def test_a_file_that_excludes_nothing_is_all_traffic(text):
    assert read(text) is ALL_PODS
    assert ALL_PODS.narrow("http") == "http"


@pytest.mark.parametrize(
    ("text", "captured", "others"),
    [
        ('{"regex": "^cart"}', [(CART, SHOP), (OUTSIDE, CART)], [(SHOP, DNS), (SHOP, OUTSIDE)]),
        ('{"namespaces": ["shop"]}', [(SHOP, OUTSIDE), (DNS, CART)], [(DNS, DNS), (DNS, OUTSIDE)]),
        ('{"excludedNamespaces": ["kube-system"]}', [(DNS, CART)], [(DNS, OUTSIDE), (DNS, DNS)]),
        (
            '{"regex": "1", "namespaces": ["shop"], "excludedNamespaces": ["shop"]}',
            [],
            [(CART, SHOP), (DNS, CART)],
        ),
    ],
)
def test_captured_is_what_has_a_target_at_one_end(text, captured, others):
    targets = read(text)
    assert all(is_captured(targets, *ends) for ends in captured)
    assert not any(is_captured(targets, *ends) for ends in others)


def test_a_statement_keeps_its_meaning_and_its_limit():
    targets = read('{"namespaces": ["shop"]}')
    assert not is_captured(targets, CART, SHOP, "dns or false # a remark")
    assert is_captured(targets, CART, SHOP, "dns or http # a remark")
    assert kfl.compile(targets.narrow("http and limit(3)")).limit == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"regex": "("}', "regex: .*missing \\)"),
        ('{"regexp": "a"}', "regexp: Extra inputs"),
        ('{"namespaces": "shop"}', "namespaces: "),
        ("[]", "should be an object"),
        ("no JSON", "Invalid JSON"),
    ],
)
def test_a_file_that_is_wrong_is_refused_with_the_place(text, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read(text)
    path = tmp_path / "targets.json"
    path.write_text(text)
    with pytest.raises(UserError, match="does not say what to capture"):
        TargetsFile(path).open()


def test_a_file_that_changes_is_noticed_and_one_that_is_broken_changes_nothing(tmp_path):
    path = tmp_path / "targets.json"
    path.write_text('{"namespaces": ["shop"]}')
    targets = TargetsFile(path)
    targets.open()
    before, time = targets.current, 1.0
    assert not targets.look(time)
    for text, is_other in (("{", False), ('{"namespaces": ["shop"] }', False), ("{}", True)):
        path.write_text(text)
        assert not targets.look(time)  # not at each call
        time += LOOK_SECONDS
        assert targets.look(time) is is_other
        assert targets.current is (ALL_PODS if is_other else before)
    path.unlink()
    assert not targets.look(time + LOOK_SECONDS)
    assert targets.current is ALL_PODS


def test_a_run_that_is_on_goes_on_with_its_new_statement():
    runs = Assignments()
    runs.update([Assignment("a", 1, "http", 0, 100, 0)])
    (run,) = runs.advance(1).started
    before = runs.active
    runs.update([Assignment("a", 1, "(http) and (dns)", 0, 100, 0)])
    assert runs.advance(2) == type(runs.advance(2))()
    assert run in runs.active
    assert runs.active is not before
    assert not run.filter.matches({"protocol": {"name": "http"}})
