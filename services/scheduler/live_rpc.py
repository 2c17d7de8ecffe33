"""LiveService over gRPC: a call is a watcher, and its end is that of what it watched."""

import threading
import time
from collections.abc import Iterator
from typing import Final

import grpc
from recorder.v1 import ingest_pb2, live_pb2, live_pb2_grpc

import kfl
from recordings.journal import TABLE_CODES
from services.runtime.logging import logger
from services.scheduler.live import MOST_WATCHERS, Live, News, Seen, Watched, Watcher

CHANGE_SECONDS: Final = 0.1
"""Least time between two statements of a watcher: each makes all agents change what they do."""


class LiveService(live_pb2_grpc.LiveServiceServicer):
    """The servicer."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def Watch(  # noqa: N802 - the name is the protocol's
        self, request_iterator: Iterator[live_pb2.WatchRequest], context: grpc.ServicerContext
    ) -> Iterator[live_pb2.WatchResponse]:
        """Send what agents see, until the call ends."""
        watcher = self._live.begin()
        if watcher is None:
            context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"{MOST_WATCHERS} query services watch live traffic, which is the most at once.",
            )
            raise AssertionError("abort returned")
        wrong: list[str] = []
        if not context.add_callback(lambda: self._live.end(watcher)):
            self._live.end(watcher)
        threading.Thread(
            target=self._listen,
            args=(watcher, request_iterator, wrong),
            name="live-watch",
            daemon=True,
        ).start()
        try:
            while (news := self._live.next(watcher)) is not None:
                yield from _responses(news)
        finally:
            self._live.end(watcher)
        if wrong:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, wrong[0])
        context.abort(grpc.StatusCode.UNAVAILABLE, "The scheduler is stopping, or sees no reader.")

    def _listen(
        self, watcher: Watcher, requests: Iterator[live_pb2.WatchRequest], wrong: list[str]
    ) -> None:
        try:
            for request in requests:
                if request.kfl:
                    kfl.compile(request.kfl)  # as agents will
                self._live.watch(watcher, request.kfl)
                time.sleep(CHANGE_SECONDS)
        except kfl.KflError as error:
            wrong.append(str(error))
        except Exception as error:  # gRPC raises what it likes when the other side has gone
            logger(__name__).debug("nobody watches any more", reason=repr(error))
        finally:
            self._live.end(watcher)


def _responses(news: News) -> Iterator[live_pb2.WatchResponse]:
    if isinstance(news, Watched):
        yield live_pb2.WatchResponse(watched=live_pb2.Watched(kfl=news.kfl, agents=news.agents))
    elif isinstance(news, Seen):
        seen = live_pb2.Seen(
            source=news.source,
            node=news.node,
            skipped=news.skipped,
            dropped=news.dropped,
            parts=[
                ingest_pb2.BatchPart(
                    table=ingest_pb2.Table.ValueType(TABLE_CODES[part.table]),
                    arrow_ipc=part.octets,
                    rows=part.rows,
                )
                for part in news.parts
            ],
        )
        yield live_pb2.WatchResponse(seen=seen)
    else:
        change = live_pb2.AgentChange(
            agent_id=news.agent_id,
            node=news.node,
            connected=news.connected,
            agents=news.agents,
        )
        yield live_pb2.WatchResponse(agent=change)
