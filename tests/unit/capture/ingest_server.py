"""An IngestService on loopback that keeps what it acknowledges in a file, and misbehaves on demand.

Imported by tests, and run as a process of its own (main) where a test kills it.
"""

import pickle
import sys
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from recorder.v1 import ingest_pb2, ingest_pb2_grpc


@dataclass
class Stored:
    """One batch as it is on disk."""

    agent: str
    sequence: int
    job: str
    run: int
    final: bool
    parts: list[tuple[int, bytes, int]]
    size: int


@dataclass
class Ingest(ingest_pb2_grpc.IngestServiceServicer):
    """The agents' side of a scheduler."""

    file: Path
    window_bytes: int = 1 << 20
    max_batch_bytes: int = 1 << 20
    acknowledgement_delay: float = 0.0
    acknowledge: bool = True
    break_after: int = 0
    """Ends a session after this many batches, the last of them stored but not acknowledged."""
    refused: frozenset[int] = frozenset()
    silent: bool = False
    assignments: list[ingest_pb2.Assignment] = field(default_factory=list)
    hellos: list[ingest_pb2.Hello] = field(default_factory=list)
    matched: list[ingest_pb2.Matched] = field(default_factory=list)
    wrongs: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def stored(self) -> list[Stored]:
        """Return all batches on disk, in the order in which they came."""
        batches = []
        if self.file.exists():
            with self.file.open("rb") as lines:
                while True:
                    try:
                        batches.append(pickle.load(lines))
                    except (EOFError, pickle.UnpicklingError):
                        break
        return batches

    def Connect(  # noqa: N802
        self, requests: Iterator[ingest_pb2.ConnectRequest], context: grpc.ServicerContext
    ) -> Iterator[ingest_pb2.ConnectResponse]:
        first = next(requests)
        hello = first.hello
        self.hellos.append(hello)
        if self.silent:
            while context.is_active():
                time.sleep(0.01)
            return
        last = max((b.sequence for b in self.stored() if b.agent == hello.agent_id), default=0)
        yield ingest_pb2.ConnectResponse(
            welcome=ingest_pb2.Welcome(
                last_sequence=last,
                window_bytes=self.window_bytes,
                max_batch_bytes=self.max_batch_bytes,
            )
        )
        yield ingest_pb2.ConnectResponse(
            assignments=ingest_pb2.Assignments(revision=1, assignments=self.assignments)
        )
        count = 0
        for request in requests:
            if request.HasField("matched"):
                self.matched.append(request.matched)
                continue
            batch = request.batch
            count += 1
            if request.ByteSize() > self.max_batch_bytes:
                self.wrongs.append(f"batch {batch.sequence} has {request.ByteSize()} octets")
            if batch.sequence > last + 1:
                self.wrongs.append(f"batch {batch.sequence} after {last}")
                context.abort(grpc.StatusCode.FAILED_PRECONDITION, "a hole")
            if batch.sequence in self.refused:
                yield ingest_pb2.ConnectResponse(
                    refusal=ingest_pb2.Refusal(sequence=batch.sequence, reason="it is Sunday")
                )
                last = batch.sequence
            elif batch.sequence == last + 1:
                self._store(hello.agent_id, batch)
                last = batch.sequence
            if self.break_after and count >= self.break_after:
                context.abort(grpc.StatusCode.UNAVAILABLE, "the cable was pulled")
            if not self.acknowledge:
                continue
            time.sleep(self.acknowledgement_delay)
            yield ingest_pb2.ConnectResponse(
                acknowledgement=ingest_pb2.Acknowledgement(sequence=last)
            )

    def _store(self, agent: str, batch: ingest_pb2.Batch) -> None:
        parts = [(part.table, part.arrow_ipc, part.rows) for part in batch.parts]
        stored = Stored(
            agent, batch.sequence, batch.job, batch.run, batch.final, parts, batch.ByteSize()
        )
        with self._lock, self.file.open("ab", buffering=0) as out:
            out.write(pickle.dumps(stored))


def serve(ingest: Ingest, port: int = 0) -> tuple[grpc.Server, int]:
    """Start a server on loopback; return it and its port."""
    server = grpc.server(
        futures.ThreadPoolExecutor(4),
        options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 16 << 20)],
    )
    ingest_pb2_grpc.add_IngestServiceServicer_to_server(ingest, server)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    return server, bound


def main() -> None:
    """Serve until killed; the arguments are the file, the port and the seconds to acknowledge."""
    ingest = Ingest(Path(sys.argv[1]), acknowledgement_delay=float(sys.argv[3]))
    running, port = serve(ingest, int(sys.argv[2]))
    print(port, flush=True)
    running.wait_for_termination()
