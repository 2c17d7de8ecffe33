"""Questions over recordings of which some runs are in an archive alone."""

import random
import shutil
from dataclasses import replace

import grpc
import pytest
from recorder.v1 import query_pb2, query_pb2_grpc

from recordings import archive, layout
from recordings.manifest import Manifest
from recordings.remote import Remote
from services.query.app import App
from services.runtime.channel import open_channel
from services.runtime.settings import QuerySettings
from tests.unit.query.conftest import START_NS
from tests.unit.query.test_query_rpc import ask, at

MINUTE = 60 * 10**9


def write(disk, run, segments=2, name="shop"):
    """Record a run of two entries, packets and a loss in each segment."""
    made = disk.run(name, run)
    for number in range(segments):
        time = START_NS + (10 * run + number) * MINUTE
        entries = [{"start_time": time + n, "index": n, "elapsed_us": run} for n in range(2)]
        made.append(entries=entries, packets=[{"time": time}], losses=[{"start_time": time}])
        made.turn()
    manifest = replace(Manifest.load(made.folder), id=f"{name}{run}")
    manifest.save(made.folder)
    return made.folder, manifest


@pytest.fixture
def archived(disk, bucket):
    """Runs 1 and 2 of the recording shop; the first is in the archive alone, the second in both."""
    remote = Remote(bucket.url())
    for run in (1, 2):
        folder, manifest = write(disk, run)
        archive.copy(folder, manifest, remote, 1)
    shutil.rmtree(layout.run(disk.data, "shop", 1))
    return remote


class Service:
    """The query service, as its process has it."""

    def __init__(self, *data, **settings):
        self.app = App(QuerySettings(listen="127.0.0.1:0", data=[*map(str, data)], **settings))
        self.app.start()
        self.channel = open_channel(self.app.server.address)
        self.stub = query_pb2_grpc.QueryServiceStub(self.channel)

    def close(self):
        self.channel.close()
        self.app.stop()


@pytest.fixture
def serve():
    made = []

    def start(*data, **settings):
        made.append(Service(*data, **settings))
        return made[-1].stub

    yield start
    for service in made:
        service.close()


ALL = 'record("shop") and http'


def test_each_run_is_answered_over_once(archived, disk, bucket, serve):
    stub = serve(disk.data, bucket.url())
    told = ask(stub, ALL)
    assert told.values("elapsedTimeUs") == [1] * 4 + [2] * 4
    assert len(told.losses) == 4
    assert not told.status.warnings
    (found,) = stub.ListRecordings(query_pb2.ListRecordingsRequest()).recordings
    assert (found.name, found.runs, found.entries, found.packets) == ("shop", 2, 8, 4)


def test_the_archive_alone_is_enough(archived, bucket, serve):
    stub = serve(bucket.url())
    assert ask(stub, ALL).values("elapsedTimeUs") == [1] * 4 + [2] * 4
    exported = b"".join(part.chunk for part in stub.Export(query_pb2.ExportRequest(kfl=ALL)))
    assert exported[:4] == b"\n\r\r\n"
    assert len(exported) > 4 * 60


def test_what_a_question_does_not_need_is_not_fetched(archived, bucket, serve, tmp_path):
    stub = serve(bucket.url(), cache=tmp_path / "cache")
    told = ask(stub, ALL, end_time=at(START_NS + 15 * MINUTE))
    assert told.values("elapsedTimeUs") == [1] * 4
    entries = (tmp_path / "cache").rglob("entries-*.parquet")
    assert {path.parent.name for path in entries} == {"0001"}


def test_the_cache_is_bounded_and_goes_with_the_process(archived, bucket, tmp_path):
    service = Service(bucket.url(), cache=tmp_path / "cache", cache_limit=1 << 20)
    ask(service.stub, ALL)
    files = list((tmp_path / "cache").rglob("*.parquet"))
    assert files
    assert sum(p.stat().st_size for p in files) <= 1 << 20
    service.close()
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_question_that_does_not_fit_is_told(disk, bucket, serve):
    made = disk.run("large")
    for seed in range(2):
        body = random.Random(seed).randbytes(700 << 10).hex()
        made.append(entries=[{"response_body": body}])
        made.turn()
    archive.copy(made.folder, Manifest.load(made.folder), Remote(bucket.url()), 1)
    stub = serve(bucket.url(), cache_limit=1 << 20)
    with pytest.raises(grpc.RpcError) as raised:
        ask(stub, 'record("large")')
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "Ask for a shorter time, or let the query service" in raised.value.details()


def test_an_archive_that_is_away_is_a_warning(archived, disk, bucket, serve):
    stub = serve(disk.data, bucket.url())
    bucket.proxy.cut()
    told = ask(stub, ALL)
    assert told.values("elapsedTimeUs") == [2] * 4
    (warning,) = told.status.warnings
    assert warning.startswith(f"s3://{bucket.name}/recorder/recordings: ")


def test_a_recording_that_only_an_archive_could_have_is_told_so(archived, bucket, serve):
    stub = serve(bucket.url())
    bucket.proxy.cut()
    with pytest.raises(grpc.RpcError) as raised:
        ask(stub, ALL)
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND
    assert f"s3://{bucket.name}/recorder/recordings: " in raised.value.details()


def test_an_archive_that_goes_away_in_between_is_told(archived, bucket, serve):
    stub = serve(bucket.url())
    stub.ListRecordings(query_pb2.ListRecordingsRequest())
    bucket.proxy.cut()
    with pytest.raises(grpc.RpcError) as raised:
        ask(stub, ALL)
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    assert raised.value.details().startswith(f"s3://{bucket.name}/recorder/recordings/shop/000")
    bucket.proxy.mend()
    assert len(ask(stub, ALL).entries) == 8


def test_a_damaged_file_is_told(archived, bucket, serve):
    key = "recordings/shop/0001/entries-00000001.parquet"
    bucket.write(key, b"\0" * len(bucket.read(key)))
    with pytest.raises(grpc.RpcError) as raised:
        ask(serve(bucket.url()), ALL)
    assert raised.value.code() is grpc.StatusCode.DATA_LOSS
    assert f"{key} is damaged" in raised.value.details()


def test_a_damaged_manifest_is_a_warning(archived, bucket, serve):
    bucket.write("recordings/shop/0001/manifest.json", b"{}")
    told = ask(serve(bucket.url()), ALL)
    assert told.values("elapsedTimeUs") == [2] * 4
    assert "0001/manifest.json cannot be used" in told.status.warnings[0]


def test_a_follower_gets_each_entry_once_when_its_run_moves_to_the_archive(
    archived, disk, bucket, serve, monkeypatch
):
    monkeypatch.setattr("recordings.archived.REFRESH_SECONDS", 0.0)
    stub = serve(disk.data, bucket.url())
    request = query_pb2.QueryRequest(kfl=ALL, follow=True, format=query_pb2.ENTRY_FORMAT_JSON)
    parts = stub.Query(request)
    got = []
    for part in parts:
        if part.WhichOneof("part") == "json":
            got.append(part.json)
        if part.WhichOneof("part") == "status":
            break
    assert len(got) == 8
    shutil.rmtree(layout.run(disk.data, "shop", 2))
    write(disk, 3)
    for part in parts:
        if part.WhichOneof("part") == "json":
            got.append(part.json)
            if len(got) == 12:
                break
    parts.cancel()
    assert len(set(got)) == 12


def test_a_run_of_an_older_release_counts_once_too(disk, bucket, serve):
    folder, manifest = write(disk, 1)
    manifest = replace(manifest, id="")
    manifest.save(folder)
    archive.copy(folder, manifest, Remote(bucket.url()), 1)
    assert len(ask(serve(disk.data, bucket.url()), ALL).entries) == 4


def test_another_run_of_the_same_name_in_the_archive_is_told_apart(archived, disk, bucket, serve):
    """A run on disk that has the number of an archived one, but is of a later job, counts too."""
    folder, manifest = write(disk, 1)
    replace(manifest, id="later").save(folder)
    told = ask(serve(disk.data, bucket.url()), ALL)
    assert sorted(told.values("elapsedTimeUs")) == [1] * 8 + [2] * 4


@pytest.fixture
def living(disk, bucket):
    """A run of which the first segments live in the bucket, and a later one here."""
    remote = Remote(bucket.url())
    made = disk.run("shop", 1)
    for number in range(3):
        if number == 2:
            archive.copy(made.folder, Manifest.load(made.folder), remote, 1)
        time = START_NS + number * MINUTE
        made.append(entries=[{"start_time": time, "elapsed_us": number}], packets=[{"time": time}])
        made.turn()
    manifest = Manifest.load(made.folder)
    segments = tuple(replace(s, is_remote=s.file[-9] < "3") for s in manifest.segments)
    replace(manifest, segments=segments, storage=remote.url).save(made.folder)
    for segment in segments:
        if segment.is_remote:
            (made.folder / segment.file).unlink()
    time = START_NS + 3 * MINUTE
    made.append(entries=[{"start_time": time, "elapsed_us": 3}], packets=[{"time": time}])
    return remote


def test_what_lives_elsewhere_is_answered_over_with_what_is_here(living, disk, bucket, serve):
    stub = serve(disk.data, storage=bucket.url())
    told = ask(stub, ALL)
    assert told.values("elapsedTimeUs") == [0, 1, 2, 3]
    assert not told.status.warnings
    exported = b"".join(part.chunk for part in stub.Export(query_pb2.ExportRequest(kfl=ALL)))
    assert len(exported) > 4 * 60
    (found,) = stub.ListRecordings(query_pb2.ListRecordingsRequest()).recordings
    assert found.entries == 4


def test_without_the_setting_it_is_a_warning(living, disk, bucket, serve):
    told = ask(serve(disk.data), ALL)
    assert told.entries == []
    assert told.status.warnings == [
        f"Run 1 of shop lives in s3://{bucket.name}/recorder; the setting that says so is "
        "--storage."
    ]


def test_the_folder_of_one_of_several_schedulers_is_known(living, disk, bucket, serve):
    """Each has a folder of its own in the place that the setting names; no other is believed."""
    up = bucket.url().replace("/recorder?", "?")
    folder = layout.run(disk.data, "shop", 1)
    manifest = Manifest.load(folder)
    told = ask(serve(disk.data, storage=up), ALL)
    assert "and not in" in told.status.warnings[0]
    for key in bucket.files():
        bucket.write(key, bucket.read(key), below="0a-1b")
    replace(manifest, storage=f"s3://{bucket.name}/0a-1b").save(folder)
    assert len(ask(serve(disk.data, storage=up), ALL).entries) == 4
