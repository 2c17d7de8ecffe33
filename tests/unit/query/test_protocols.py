import shutil
from typing import Any

from services.query import protocols


def test_files_and_tails_say_which_protocols_there_are(disk: Any) -> None:
    run = disk.run("web")
    run.append(entries=[{}, {"protocol_name": "dns"}])
    run.turn()
    run.append(entries=[{"protocol_name": "redis"}])
    source = disk.catalog().open("web").source("entries")
    assert protocols.of([source]) == {"http", "dns", "redis"}
    assert protocols.of([]) == frozenset()


def test_a_recording_that_is_made_again_is_read_again(disk: Any) -> None:
    for name in ("http", "dns"):
        run = disk.run("web")
        run.append(entries=[{"protocol_name": name}])
        run.turn()
        source = disk.catalog().open("web").source("entries")
        assert protocols.of([source]) == {name}
        run.close()
        shutil.rmtree(run.folder)


def test_of_a_damaged_file_nothing_is_known(disk: Any) -> None:
    run = disk.run("web")
    run.append(entries=[{}])
    run.turn()
    source = disk.catalog().open("web").source("entries")
    source.files[0].write_bytes(b"PAR1 and no more")
    assert protocols.of([source]) is None
    source.files[0].unlink()
    assert protocols.of([source]) is None
