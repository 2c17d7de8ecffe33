"""What an entry says of a message of MongoDB. Passwords and the steps of SASL are left out."""

from typing import Any

from services.capture.dissectors.mongodb import messages as wire
from services.capture.dissectors.mongodb.bson import Counted
from services.capture.dissectors.mongodb.messages import Body, Json
from services.capture.dissectors.objectcalls import dumped
from services.capture.dissectors.sqltext import REDACTED

MOST_QUERY = 64 << 10  # characters of a query's text: what is longer is cut

SECRETS = {
    "saslStart": ("payload",), "saslContinue": ("payload",), "authenticate": ("key", "nonce"),
    "createUser": ("pwd",), "updateUser": ("pwd",), "copydbsaslstart": ("payload",),
    "copydb": ("key", "nonce"),
}  # fmt: skip
"""By command, what is secret in it."""
OF_THE_CLUSTER = frozenset(
    {"$clusterTime", "$db", "$readPreference", "lsid", "operationTime", "$configServerState",
     "$gleStats", "$topologyTime", "txnNumber"}
)  # fmt: skip
"""Keys that say nothing of the command itself."""
FILTERS = ("filter", "query", "q")
CHANGES = ("updates", "deletes")
OF_COLLECTIONS = frozenset(
    {"aggregate", "autoCompact", "collMod", "collStats", "compact", "convertToCapped", "count",
     "create", "createIndexes", "delete", "distinct", "drop", "dropIndexes", "find",
     "findAndModify", "findandmodify", "geoNear", "geoSearch", "getMore", "group", "insert",
     "killCursors", "listIndexes", "mapReduce", "mapreduce", "parallelCollectionScan", "reIndex",
     "update", "validate"}
)  # fmt: skip
"""Commands whose value is a collection's name."""
WRITES = frozenset({"insert", "update", "delete", "getLastError", "getlasterror"})
FIRST_OF_CURSOR = ("firstBatch", "nextBatch")


def _without_secrets(command: str, document: Json) -> Json:
    secret = SECRETS.get(command, ())
    told = {key: REDACTED if key in secret else value for key, value in document.items()}
    speculative = told.get("speculativeAuthenticate")
    if isinstance(speculative, dict):
        told["speculativeAuthenticate"] = {
            key: REDACTED if key in ("payload", "nonce", "key") else value
            for key, value in speculative.items()
        }
    if "conversationId" in told and "payload" in told:
        told["payload"] = REDACTED
    return told


def request_of(body: Body) -> Json:
    """Return the request of an entry."""
    request: Json = {"opcode": wire.OPCODES[body.opcode]}
    if body.compressor:
        request["compressor"] = body.compressor
    if body.opcode == wire.MSG:
        document = body.documents[0] if body.documents else {}
        _tell_command(request, document, str(document.get("$db", "")), body)
    elif body.opcode == wire.QUERY:
        _tell_query(request, body)
    else:
        _tell_older(request, body)
    if body.is_cut:
        request["bodyTruncated"] = True
    return request


def _tell_command(request: Json, document: Json, database: str, body: Body) -> None:
    name = next(iter(document), "")
    value = document.get(name)
    request["command"] = name
    if database:
        request["database"] = database
    collection = document.get("collection") if name == "getMore" else value
    if isinstance(collection, str) and name in OF_COLLECTIONS:
        request["collection"] = collection
    document = _without_secrets(name, document)
    told = {key: value for key, value in document.items() if key not in OF_THE_CLUSTER}
    for key, (documents, total) in body.sequences.items():
        told[key] = documents
        request[f"{key}Total"] = total
    _tell_filter(request, told)
    request["query"] = dumped(told)[:MOST_QUERY]


def _tell_filter(request: Json, told: Json) -> None:
    """Tell what is looked for: of several changes, the first one's."""
    changes = (told.get(key) for key in CHANGES)
    for place in (told, *(each[0] for each in changes if isinstance(each, list) and each)):
        for key in FILTERS:
            if isinstance(place, dict) and isinstance(place.get(key), dict):
                request["filter"] = place[key]
                return


def _tell_query(request: Json, body: Body) -> None:
    """OP_QUERY: a command, or a search of clients before 3.2."""
    database, _, collection = body.collection.partition(".")
    document = body.documents[0] if body.documents else {}
    wrapped = document.get("$query", document.get("query"))
    if collection == "$cmd":
        inner = wrapped if isinstance(wrapped, dict) and "$query" in document else document
        _tell_command(request, inner, database, body)
        return
    request |= {"command": "find", "database": database, "collection": collection}
    request["filter"] = wrapped if isinstance(wrapped, dict) and "$query" in document else document
    request["query"] = dumped(document)[:MOST_QUERY]


OLDER = {
    wire.INSERT: "insert", wire.UPDATE: "update", wire.DELETE: "delete",
    wire.GET_MORE: "getMore", wire.KILL_CURSORS: "killCursors",
}  # fmt: skip


def _tell_older(request: Json, body: Body) -> None:
    request["command"] = OLDER.get(body.opcode, "")
    if body.collection:
        request["database"], _, request["collection"] = body.collection.partition(".")
    if body.opcode == wire.INSERT:
        request["documentsTotal"] = body.total
    if body.opcode in (wire.UPDATE, wire.DELETE) and body.documents:
        request["filter"] = body.documents[0]
    if body.cursor:
        request["cursorID"] = body.cursor
    if body.documents:
        request["query"] = dumped(body.documents)[:MOST_QUERY]


def response_of(body: Body, request: Json | None) -> Json:
    """Return the response of an entry."""
    response: Json = {"opcode": wire.OPCODES[body.opcode], "status": "OK"}
    if body.compressor:
        response["compressor"] = body.compressor
    document = body.documents[0] if body.documents else {}
    asked = (request or {}).get("opcode"), (request or {}).get("command")
    is_search = asked in (("OP_QUERY", "find"), ("OP_GET_MORE", "getMore"))
    is_command = body.opcode == wire.MSG or (body.total == 1 and "ok" in document and not is_search)
    if is_command or not body.documents:
        _tell_reply(response, document, request)
    if body.opcode == wire.REPLY and not is_command:
        response |= {"rows": body.count, "documents": body.documents}
        if body.cursor:
            response["cursorID"] = body.cursor
    if body.opcode == wire.REPLY:
        _tell_failure(response, body, document)
    if body.is_cut:
        response["bodyTruncated"] = True
    return response


def _tell_failure(response: Json, body: Body, document: Json) -> None:
    """Errors of clients before 3.2."""
    if body.flags & wire.CURSOR_NOT_FOUND:
        error: Json = {"code": 43, "codeName": "CursorNotFound", "message": "cursor not found"}
    elif body.flags & wire.QUERY_FAILURE or "$err" in document:
        error = {"message": str(document.get("$err", ""))}
        if isinstance(document.get("code"), int):
            error["code"] = document["code"]
    else:
        return
    response |= {"status": "ERROR", "error": error}


def _tell_reply(response: Json, document: Json, request: Json | None) -> None:
    error = _error(document)
    if error:
        response |= {"status": "ERROR", "error": error}
    command = str(request.get("command", "")) if request else ""
    told = {
        key: value for key, value in _without_secrets(command, document).items()
        if key not in OF_THE_CLUSTER
    }  # fmt: skip
    cursor = told.pop("cursor", None)
    if isinstance(cursor, dict):
        for key in FIRST_OF_CURSOR:
            batch = cursor.get(key)
            if isinstance(batch, Counted):
                response["rows"], response["documents"] = batch.total, batch[: wire.MOST_DOCUMENTS]
        if cursor.get("id"):
            response["cursorID"] = cursor["id"]
    if command in WRITES and type(told.get("n")) is int:
        upserted = told.get("upserted")
        modified = told.get("nModified", told["n"])
        if type(modified) is int:
            upserts = len(upserted) if isinstance(upserted, list) and "nModified" in told else 0
            response["affected"] = modified + upserts
    if told.keys() - {"ok"}:
        response["reply"] = told


def _error(document: Json) -> Json:
    """Return what went wrong: with the command, or with the first of several writes."""
    failed: Any = document
    if document.get("ok") or "ok" not in document:
        writes = document.get("writeErrors")
        concern = document.get("writeConcernError")
        failed = writes[0] if isinstance(writes, list) and writes else concern
    if not isinstance(failed, dict) or not failed:
        return {}
    error: Json = {}
    for key, name in (("code", "code"), ("codeName", "codeName"), ("errmsg", "message")):
        if isinstance(failed.get(key), int | str):
            error[name] = failed[key]
    return error
