"""RPCs about the language: what statements mean, and help to write them. Part of query_rpc."""

from collections.abc import Iterable, Iterator

import grpc
from recorder.v1 import query_pb2

import kfl
from kfl.macros import explain
from services.query import messages
from services.query.base import QueryBase
from services.query.catalog import UnknownRecordingError
from services.query.refusals import refuse, refuse_statement

MAX_TEXT = 100_000
"""Characters of a text to complete or to colour: more than the longest filter has."""


class LanguageRpc(QueryBase):
    """Check, Explain, Complete, Tokens and ListFields."""

    def Check(  # noqa: N802
        self, request: query_pb2.CheckRequest, context: grpc.ServicerContext
    ) -> query_pb2.CheckResponse:
        """Say how a statement is understood, or what is wrong with it."""
        del context
        response = query_pb2.CheckResponse()
        diagnostics = list(kfl.check(request.kfl, self.macros))
        if not any(found.is_error for found in diagnostics):
            statement = kfl.compile(request.kfl, self.macros)
            response.explanation = explain(request.kfl, self.macros)
            response.recordings.extend(dict.fromkeys(statement.recordings()))
            diagnostics += self._unknown_recordings(request.kfl, response.recordings)
        response.ok = not any(found.is_error for found in diagnostics)
        for found in diagnostics:
            response.diagnostics.append(messages.diagnostic(found))
        return response

    def Explain(  # noqa: N802
        self, request: query_pb2.ExplainRequest, context: grpc.ServicerContext
    ) -> query_pb2.ExplainResponse:
        """Say how a statement is understood."""
        try:
            return query_pb2.ExplainResponse(explanation=explain(request.kfl, self.macros))
        except kfl.KflError as error:
            refuse_statement(context, error)

    def Complete(  # noqa: N802
        self, request: query_pb2.CompleteRequest, context: grpc.ServicerContext
    ) -> query_pb2.CompleteResponse:
        """Say what can stand at the caret."""
        _check_length(request.text, context)
        if request.caret > len(request.text):
            refuse(context, "caret", f"The text ends after {len(request.text)} characters.")
        found = kfl.complete(
            request.text, request.caret, recordings=self.catalog.names(), macros=self.macros
        )
        return query_pb2.CompleteResponse(
            start=found.start,
            end=found.end,
            candidates=[
                query_pb2.Candidate(
                    insert=each.insert, kind=each.kind, type=each.type, help=each.help
                )
                for each in found.candidates
            ],
        )

    def Tokens(  # noqa: N802
        self, request: query_pb2.TokensRequest, context: grpc.ServicerContext
    ) -> query_pb2.TokensResponse:
        """Say what the pieces of a text are."""
        _check_length(request.text, context)
        found = kfl.tokens(request.text, self.macros)
        return query_pb2.TokensResponse(
            tokens=[
                query_pb2.Token(start=each.start, end=each.end, kind=each.kind) for each in found
            ]
        )

    def ListFields(  # noqa: N802
        self, request: query_pb2.ListFieldsRequest, context: grpc.ServicerContext
    ) -> query_pb2.ListFieldsResponse:
        """Return the catalogue."""
        del request, context
        return query_pb2.ListFieldsResponse(
            fields=[
                query_pb2.Field(
                    name=each.name,
                    type=each.type,
                    meaning=each.meaning,
                    aliases=each.aliases,
                    column=each.column or "",
                    unit=each.unit,
                    protocols=each.protocols,
                    absent=each.absent,
                )
                for each in kfl.fields.CATALOGUE
            ]
        )

    def _unknown_recordings(self, text: str, names: Iterable[str]) -> Iterator[kfl.Diagnostic]:
        for name in names:
            try:
                self.catalog.check(name)
            except UnknownRecordingError as error:
                line, column = _position(text, name)
                yield kfl.Diagnostic(True, line, column, str(error))


def _check_length(text: str, context: grpc.ServicerContext) -> None:
    if len(text) > MAX_TEXT:
        refuse(context, "text", f"A text is at most {MAX_TEXT} characters long.")


def _position(text: str, name: str) -> tuple[int, int]:
    """Return line and column of the first mention of a recording, from 1."""
    places = [text.find(f"{quote}{name}{quote}") for quote in "\"'"]
    place = min((found for found in places if found >= 0), default=0)
    return text.count("\n", 0, place) + 1, place - text.rfind("\n", 0, place)
