"""Real captures: entries are what tshark says, and no file breaks anything."""

import base64
import collections
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import kfl
from recordings import entry
from services.capture import dissect
from services.capture.dissectors.dns.codes import type_name
from services.capture.frames.batch import CaptureError

pytestmark = pytest.mark.captures

MOST_MEMORY = 512 << 20
MOST_SECONDS = 60
DIFFERENCES = Path(__file__).parents[2] / "golden" / "differences.yaml"
WHOLE_BODIES = 1 << 24
NOTHING = hashlib.sha256(b"").hexdigest()
OPCODES = {"QUERY": 0, "IQUERY": 1, "STATUS": 2, "NOTIFY": 4, "UPDATE": 5}
RCODES = {"NOERROR": 0, "FORMERR": 1, "SERVFAIL": 2, "NXDOMAIN": 3, "NOTIMP": 4, "REFUSED": 5}
SECTIONS = {"an": "answers", "ns": "authorities", "ar": "additionals"}


def entries(path, chosen):
    tables = dissect.tables(path, kfl.compile(chosen), WHOLE_BODIES)
    return [each for table in tables for each in entry.objects(table)]


def header(headers, name):
    found = [value for key, value in headers.items() if key.lower() == name]
    return found[0] if found else None


def body(message):
    text = message["body"]
    return base64.b64decode(text) if message.get("bodyEncoding") == "base64" else text.encode()


def http_of_tshark(messages):
    for each in messages:
        if each["kind"] == "request":
            yield ("request", each["src"], each["sport"], each["method"], each["uri"], each["host"],
                   each["user_agent"], each["body_bytes"])  # fmt: skip
        else:
            yield ("response", each["src"], each["sport"], each["status"], each["reason"],
                   each["content_type"], each["body_bytes"],
                   each.get("body_sha256", NOTHING))  # fmt: skip


def http_of_ours(found):
    for each in found:
        request, response = each["request"], each["response"]
        if request:
            yield ("request", each["src"]["ip"], each["src"]["port"], request["method"],
                   request["url"], header(request["headers"], "host"),
                   header(request["headers"], "user-agent"), len(body(request)))  # fmt: skip
        if response:
            octets = body(response)
            yield ("response", each["dst"]["ip"], each["dst"]["port"], response["status"],
                   response["statusText"] or None, header(response["headers"], "content-type"),
                   len(octets), hashlib.sha256(octets).hexdigest())  # fmt: skip


def http2_of_tshark(messages):
    for each in messages:
        side = "s" if each["kind"] == "request" else "d"
        client = (each["kind"], each["src" if side == "s" else "dst"], each[f"{side}port"])
        keys = {
            "request": ("method", "authority", "path", "content_type", "user_agent"),
            "response": ("status", "content_type", "grpc_status"),
            "trailers": ("grpc_status",),
        }[each["kind"]]
        yield (*client, each["stream_id"], *(each[key] for key in keys))


def grpc_status(headers):
    status = header(headers, "grpc-status")
    return None if status is None else int(status)


def http2_of_ours(found):
    for each in found:
        client = (each["src"]["ip"], each["src"]["port"])
        if each["request"]:
            headers = each["request"]["headers"]
            names = (":method", ":authority", ":path", "content-type", "user-agent")
            values = (header(headers, name) for name in names)
            yield ("request", *client, each["request"]["streamId"], *values)
        if each["response"]:
            headers, number = each["response"]["headers"], each["response"]["streamId"]
            answer = (header(headers, "content-type"), grpc_status(headers))
            yield ("response", *client, number, each["response"].get("status"), *answer)
            trailers = each["response"].get("trailers")
            if trailers is not None:
                yield ("trailers", *client, number, grpc_status(trailers))


def dns_name(name):
    return "." if name in ("", "<Root>") else name


def dns_of_tshark(messages):
    for each in messages:
        if each.get("in_icmp"):  # a quotation in an error message, not a message
            continue
        if each["kind"] == "query":
            asked = tuple((dns_name(q["name"]), type_name(q["type"])) for q in each["questions"])
            yield ("query", each["src"], each["sport"], each["opcode"], asked)
        else:
            records = sorted(
                (a["section"], dns_name(a["name"]), type_name(a["type"]), a["ttl"])
                for a in each["answers"]
            )
            yield ("response", each["dst"], each["dport"], each["rcode"], tuple(records))


def spaced(name):
    """tshark shows a space in a name as it is; we show names as zone files have them."""
    return name.replace("\\032", " ")


def dns_of_ours(found):
    """Without SRV records: tshark has their names in other fields, which the lists do not have."""
    for each in found:
        who = (each["src"]["ip"], each["src"]["port"])
        request, response = each["request"], each["response"]
        if request:
            asked = tuple((spaced(q["name"]), q["type"]) for q in request["questions"])
            yield ("query", *who, OPCODES[request["opCode"]], asked)
        if response:
            records = sorted(
                (section, spaced(record["name"]), record["type"], record.get("ttl"))
                for section, key in SECTIONS.items()
                for record in response.get(key, [])
                if record["type"] != "SRV"
            )
            yield ("response", *who, RCODES[response["code"]], tuple(records))


READERS = {
    "http": ("http and not (http2 or ws)", http_of_tshark, http_of_ours),
    "http2": ("http2", http2_of_tshark, http2_of_ours),
    "dns": ("dns", dns_of_tshark, dns_of_ours),
}
"""By the name of tshark's list: the filter for the same of ours, and what is compared of both."""


def opinions(captures):
    """(capture, protocol, file with tshark's list); the list without out-of-order reassembly where
    there are two, since the other one lacks what comes after a hole."""
    results = captures.parent / "oracle" / "results"
    for file in sorted(results.rglob("*.jsonl")):
        path, protocol = file.name.removesuffix(".jsonl").rsplit(".", 1)
        if protocol in READERS:
            other = file.with_name(f"{path}.{protocol}.noooo.jsonl")
            capture = str(file.parent.relative_to(results) / path)
            yield capture, protocol, other if other.exists() else file


def test_entries_are_what_tshark_says(captures):
    rows = yaml.safe_load(DIFFERENCES.read_text())
    known = {(row["capture"], row["protocol"]): row for row in rows}
    compared, unexpected = 0, []
    for capture, protocol, file in opinions(captures):
        chosen, of_tshark, of_ours = READERS[protocol]
        theirs = collections.Counter(of_tshark(map(json.loads, file.read_text().splitlines())))
        ours = collections.Counter(of_ours(entries(captures / capture, chosen)))
        only = (theirs - ours, ours - theirs)
        row = known.pop((capture, protocol), {"only_tshark": 0, "only_ours": 0})
        if tuple(side.total() for side in only) != (row["only_tshark"], row["only_ours"]):
            unexpected.append((capture, protocol, *only))
        compared += theirs.total()
    assert unexpected == []
    assert not known, "rows of differences.yaml that are needless"
    assert compared > 200


LIMITED = """
import sys
from pathlib import Path
from services.capture import dissect
from services.capture.frames.batch import CaptureError
from recordings import entry
for path in sys.argv[1:]:
    try:
        for table in dissect.tables(path, None, 65536):
            entry.objects(table)
    except CaptureError as error:
        assert path in str(error), error
    print(path)
# Not getrusage: its peak is that of the process that started this one, if that was higher.
print(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
"""


def test_every_capture_is_dissected_in_time_and_within_memory(captures):
    """All in one process, one after the other, so that what one leaves behind would show too."""
    files = sorted(
        path
        for path in captures.rglob("*")
        if path.is_file() and path.suffix not in (".tsv", ".md")
    )
    run = [sys.executable, "-c", LIMITED]
    subprocess.run([*run, *files], stdout=subprocess.DEVNULL, check=True)  # compiles: more memory
    done = subprocess.run(
        [*run, *files], capture_output=True, text=True, timeout=MOST_SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
    *seen, peak = done.stdout.splitlines()
    assert len(seen) == len(files) > 90
    assert int(peak) * 1024 < MOST_MEMORY


def test_a_capture_cut_anywhere_is_read_up_to_there(captures, tmp_path):
    whole = captures / "CESNET+ipfixprobe/tests/functional/inputs/http.pcap"
    octets = whole.read_bytes()
    cut = tmp_path / "cut.pcap"
    counts = []
    for length in range(0, len(octets), 997):
        cut.write_bytes(octets[:length])
        try:
            found, losses = dissect.count(cut, None, 0)
        except CaptureError:
            assert length < 24
            continue
        counts.append(sum(found.values()))
        assert all(loss.detail for loss in losses)
    assert counts == sorted(counts)
    assert counts[-1] == 9
