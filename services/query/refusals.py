"""What a caller is told when a question cannot be answered. Called by query_rpc."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

import grpc

from kfl import KflError
from recordings.cache import CacheFullError, DamagedObjectError
from recordings.remote import RemoteError
from services.query.catalog import Catalog, UnknownRecordingError
from services.query.engine import (
    CancelledError,
    DamagedFileError,
    EngineError,
    FilesGoneError,
    OutOfMemoryError,
    OutOfTimeError,
)
from services.query.live import LiveAwayError, LiveFullError
from services.query.packetfiles import LinkTypesError
from services.query.streams import TooMuchError
from services.runtime.errors import Violation, failed_precondition, invalid_argument, not_found
from services.runtime.logging import logger

_CODES = {
    CancelledError: grpc.StatusCode.CANCELLED,
    OutOfTimeError: grpc.StatusCode.DEADLINE_EXCEEDED,
    OutOfMemoryError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    LinkTypesError: grpc.StatusCode.FAILED_PRECONDITION,
    TooMuchError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    DamagedFileError: grpc.StatusCode.DATA_LOSS,
}


def refuse(context: grpc.ServicerContext, field: str, description: str) -> NoReturn:
    """Abort the call because a field of its request is wrong."""
    invalid_argument(context, [Violation(field, description)])


def refuse_statement(context: grpc.ServicerContext, error: KflError) -> NoReturn:
    """Abort the call because of its statement, with line, column and suggestion."""
    refuse(context, "kfl", str(error))


def refuse_live(context: grpc.ServicerContext, catalog: Catalog) -> NoReturn:
    """Abort the call because it asks for live traffic only, of which there is none here."""
    failed_precondition(
        context,
        "Live traffic has entries alone, while someone watches. Name a recording, as in "
        f'record("name") and http. {catalog.listing()}',
    )


@contextmanager
def told(
    context: grpc.ServicerContext, catalog: Catalog, recordings: Sequence[str]
) -> Iterator[None]:
    """Turn what can go wrong while `recordings` are asked into a status with a sentence."""
    try:
        yield
    except KflError as error:
        refuse_statement(context, error)
    except UnknownRecordingError as error:
        if error.is_name:
            not_found(context, str(error))
        refuse(context, "kfl", str(error))
    except (FilesGoneError, FileNotFoundError):
        _tell_gone(context, catalog, recordings)
    except (CacheFullError, LiveFullError) as error:
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
    except DamagedObjectError as error:
        context.abort(grpc.StatusCode.DATA_LOSS, str(error))
    except LiveAwayError as error:
        failed_precondition(context, str(error))
    except RemoteError as error:
        context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
    except EngineError as error:
        code = _CODES.get(type(error))
        if code is None:
            logger(__name__).error("the query engine refused a question", reason=str(error))
            code = grpc.StatusCode.INTERNAL
        context.abort(code, str(error))


def _tell_gone(
    context: grpc.ServicerContext, catalog: Catalog, recordings: Sequence[str]
) -> NoReturn:
    known = set(catalog.names())
    for name in recordings:
        if name and name not in known:
            not_found(
                context,
                f'The recording "{name}" was deleted while it was read; the answer ends here.',
            )
    context.abort(
        grpc.StatusCode.ABORTED,
        "A run expired or was deleted while it was read; the answer ends here. Ask again.",
    )
    raise AssertionError("abort returned")
