"""`recorder import`: a capture file becomes a recording."""

from __future__ import annotations

from typing import Annotated

import typer
from recorder.v1 import jobs_pb2

from services.cli.clients import CALL_SECONDS, SCHEDULER, SchedulerAddress, scheduler
from services.cli.terminal import (
    BAD_INPUT,
    FAILED,
    CommandError,
    Output,
    counted,
    new_app,
    print_json,
    printable,
    progress,
    say,
)
from services.runtime.errors import UserError

app = new_app()

Size = Annotated[
    int | None,
    typer.Option(
        min=0, max=2**32 - 1, metavar="BYTES", help="Most octets of each body that are kept."
    ),
]


@app.command("import")
def import_capture(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="pcap or pcapng, perhaps gzipped; - is stdin.")
    ],
    record: Annotated[
        str, typer.Option(metavar="NAME", help="Name of the recording that is made.")
    ],
    kfl: Annotated[
        str,
        typer.Option(metavar="KFL", help="Streams in which an entry matches this are stored."),
    ] = "http or dns",
    body_limit: Size = None,
    output: Annotated[
        Output, typer.Option(help="A sentence for people, JSON for programs.")
    ] = Output.TABLE,
    address: SchedulerAddress = SCHEDULER,
) -> None:
    """Put a capture file into a recording of its own."""
    # Before the file is opened: a service that is not there is the more likely mistake.
    with scheduler(address) as stub:
        stub.ListJobs(jobs_pb2.ListJobsRequest(), timeout=CALL_SECONDS)

    from services.capture.frames.batch import CaptureError
    from services.capture.importing import import_file
    from services.runtime.logging import configure

    configure("warning")
    with progress() as shown:
        task = shown.add_task(f"Importing {printable(file)}", total=None)

        def show(frames: int, octets: int) -> None:
            shown.update(
                task,
                description=f"Importing {printable(file)}: {frames} frames, {octets >> 20} MiB",
            )

        try:
            report = import_file(file, record, kfl, address, body_limit, show)
        except CaptureError as error:
            raise CommandError(str(error), BAD_INPUT) from None
        except UserError as error:
            from services.cli.statement import errors

            wrong = errors(kfl, str(error))
            if wrong:
                raise CommandError(wrong, BAD_INPUT) from None
            raise
    if output is Output.JSON:
        names = ("job", "run", "frames", "octets", "entries", "streams", "packets", "state")
        print_json({name: getattr(report, name) for name in (*names, "reason")})
    else:
        print(
            f"Recorded {counted(report.entries, 'entry', 'entries')} in "
            f"{counted(report.streams, 'stream')}, {report.packets} of "
            f"{counted(report.frames, 'packet')}, as {report.job}."
        )
    if report.state != "completed":
        state = report.state.replace("_", " ")
        raise CommandError(f"The job is {state}: {report.reason or 'no reason given'}", FAILED)
    say(f"Ask it with: recorder ask 'record(\"{report.job}\")'")
