import shutil
from typing import Any

import pyarrow.parquet as pq
import pytest

from services.query import query_rpc
from services.query.catalog import UnknownRecordingError
from services.query.engine import FilesGoneError
from services.query.follow import Follower
from services.query.plan import ALWAYS


def indices(source: Any) -> list[int]:
    found = [i for path in source.files for i in read(path)]
    return found + [i for _, tail in source.tails for i in tail["index"].to_pylist()]


def read(path: Any) -> list[int]:
    found: list[int] = pq.read_table(path, columns=["index"])["index"].to_pylist()
    return found


def test_each_row_is_given_once_however_it_moves(disk: Any) -> None:
    run = disk.run("web")
    follower = Follower(disk.catalog(), "web", ALWAYS)
    given: list[int] = []
    for number in range(40):
        if number % 3:
            run.append(entries=[{"index": number}])
        if number % 7 == 0:
            run.append(losses=[{}])
        if number % 5 == 0:
            run.turn()
        if number % 2:
            given += indices(follower.news().entries)
    given += indices(follower.news().entries)
    assert given == [number for number in range(40) if number % 3]
    assert follower.news().entries.rows == follower.news().losses.rows == 0


def test_a_recording_that_is_made_again_is_not_taken_for_the_old_one(disk: Any) -> None:
    disk.run("web").append(entries=[{}, {}])
    follower = Follower(disk.catalog(), "web", ALWAYS)
    follower.news()
    shutil.rmtree(disk.data / "recordings" / "web")
    disk.run("web").append(entries=[{}])
    with pytest.raises(FilesGoneError):
        follower.news()


def test_a_recording_that_never_was_and_one_that_was_deleted_are_told_apart(disk: Any) -> None:
    with pytest.raises(UnknownRecordingError):
        Follower(disk.catalog(), "web", ALWAYS).news()
    disk.run("web")
    follower = Follower(disk.catalog(), "web", ALWAYS)
    follower.news()
    shutil.rmtree(disk.data / "recordings" / "web")
    with pytest.raises(FilesGoneError):
        follower.news()


def test_followers_look_often_enough_to_be_a_second_late_at_most() -> None:
    assert query_rpc.FOLLOW_SECONDS <= 0.5
