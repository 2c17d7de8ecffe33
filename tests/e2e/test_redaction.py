"""What a job redacts is in no file of its recording, in no answer and in no export."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from recordings import journal, layout
from tests.e2e.network import Network
from tests.e2e.services import Recorder

pytestmark = [pytest.mark.root, pytest.mark.debian]

HEADER, BODY, QUERY = "bearer-s3cret-1", "body-s3cret-2", "query-s3cret-3"
REDACTS = (
    'redact("request.headers.Authorization", "request.body.json().password", '
    '"request.queryString.token")'
)
SHOWN = '{"user": "ann",  "password": "%s", "n": 12345678901234567890.10}'


def call(network: Network, *paths: str) -> None:
    """Post the three secrets to each path, over one connection."""
    more = ["--header", f"Authorization: {HEADER}", "--header", "Content-Type: application/json"]
    more += ["--data", SHOWN % BODY]
    network.curl(*(f"{path}?a=1&token={QUERY}" for path in paths), method="POST", more=more)


def found_in(folder: Path) -> set[str]:
    """Return the secrets that are in the files of a recording, as they are and decoded."""
    texts = []
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        octets = [file.read_bytes()]
        if file.suffix == ".parquet":
            octets.append(texts_of(f"'{file}'"))
        elif file.suffix == ".log":
            for record in journal.read(file).records:
                for part in record.parts:
                    rows = pa.Table.from_batches(part.batches())
                    octets += [part.octets, texts_of("rows", rows)]
        texts += octets
    assert texts
    return {secret for secret in (HEADER, BODY, QUERY) if any(secret.encode() in t for t in texts)}


def texts_of(source: str, rows: pa.Table | None = None) -> bytes:
    """Return the rows of a file, or these, as text."""
    with duckdb.connect() as connection:
        if rows is not None:
            connection.register("rows", rows)
        found = connection.execute(f"SELECT t::VARCHAR FROM {source} AS t").fetchall()
    return repr(found).encode()


def test_redacted_values_are_stored_nowhere(
    network: Network, live: Recorder, new_name: Callable[[], str], tmp_path: Path
) -> None:
    hides, late, shows = new_name(), new_name(), new_name()
    here = f'request.path.contains("/{hides}-")'
    live.record(hides, f"http and {here} and {REDACTS}")
    live.record(late, f"response.status == 500 and {here} and {REDACTS}")
    live.record(shows, f'{here} and request.queryString.token == "{QUERY}"')
    call(network, f"/ok/{hides}-1", f"/broken/{hides}-2", f"/ok/{hides}-3")
    for name in (hides, late, shows):
        live.wait_for(f'record("{name}") and http', 3)

    def folder(name: str) -> Path:
        return layout.recording(live.data, name)

    for is_rolled in (False, True):
        for name in (hides, late, shows):
            if is_rolled:
                live.stop_job(name)
            files = {path.name.partition("-")[0] for path in folder(name).rglob("*-*")}
            assert ("journal" in files) is not is_rolled
            assert ("packets" in files) is is_rolled
            assert found_in(folder(name)) == ({HEADER, BODY, QUERY} if name == shows else set())
            entries = live.ask(f'record("{name}") and http')
            assert len(entries) == 3, "the calls before the match and after it too"
            for entry in entries:
                check(
                    entry["request"],
                    *(("[REDACTED]",) * 3 if name != shows else (HEADER, BODY, QUERY)),
                )

    ran = live.run("ask", f'record("{hides}")')
    assert "(redacted)" in ran.said
    file = tmp_path / "found.pcapng"
    live.say("export", f'record("{hides}")', "-o", str(file))
    for secret in (HEADER, BODY, QUERY, "POST", "HTTP/1"):
        assert secret.encode() not in file.read_bytes()


def check(request: dict, header: str, body: str, query: str) -> None:
    """See that these stand where the secrets were, and that nothing else has changed."""
    assert request["headers"]["Authorization"] == header
    assert request["headers"]["Content-Type"] == "application/json"
    assert request["body"] == SHOWN % body
    assert request["url"] == f"{request['path']}?a=1&token={query}"
    assert request["queryString"] == {"a": "1", "token": query}


@pytest.mark.tshark
def test_tshark_opens_an_export_without_payloads(
    network: Network, live: Recorder, new_name: Callable[[], str], tmp_path: Path
) -> None:
    name = new_name()
    live.record(name, f'request.path.contains("/{name}") and {REDACTS}')
    call(network, f"/ok/{name}", f"/broken/{name}")
    live.wait_for(f'record("{name}") and http', 2)
    live.stop_job(name)
    file = tmp_path / "found.pcapng"
    live.say("export", f'record("{name}")', "-o", str(file))
    fields = ("ip.src", "tcp.len", "frame.len", "frame.cap_len", "tcp.flags.syn")
    ran = subprocess.run(
        ["tshark", "-r", str(file), "-T", "fields", *(x for f in fields for x in ("-e", f))],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "damaged" not in ran.stderr
    packets = [line.split("\t") for line in ran.stdout.splitlines()]
    assert all(address and length for address, length, *_ in packets)
    carrying = [packet for packet in packets if int(packet[1])]
    assert len(carrying) >= 4
    assert all(int(cut) == int(whole) - int(size) for _, size, whole, cut, _ in carrying)
    assert sum(packet[4] in ("1", "True") for packet in packets) == 2
