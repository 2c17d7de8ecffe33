# mypy: ignore-errors
"""Which request a response answers, and what body a head announces (RFC 9112, section 6.3).

The n-th final response of a stream answers its n-th request. Of each request only what decides the
framing of its response is remembered, and only for the last MOST_PIPELINED requests. Requests wait
in a queue for each stream, linked by message number.
"""

import numpy as np

from services.capture.dissectors.http1.rows import (
    ANSWER_LOST,
    MOST_PIPELINED,
    MOST_WAITING,
    NO_ANSWER,
    NO_MESSAGE,
    NO_REQUEST,
    NOTHING,
    REQUEST_FORGOTTEN,
    is_message_kept,
    message_row,
)
from services.capture.kernel import kernel

# Kinds of body.
NO_BODY, BY_LENGTH, CHUNKED, UNTIL_CLOSE, TUNNELLED = 0, 1, 2, 3, 4

# What a response has to know of its request.
OTHER_METHOD, HEAD_METHOD, CONNECT_METHOD = 0, 1, 2
HEAD_WORD = int.from_bytes(b"HEAD".ljust(8, b"\0"), "big")
CONNECT_WORD = int.from_bytes(b"CONNECT".ljust(8, b"\0"), "big")

SWITCHING_PROTOCOLS = 101

NO_EXCHANGE = -1  # of a response whose request was not seen


@kernel
def add_request(exchanges, method):
    """Remember what the response has to know; return the exchange number."""
    number = np.int64(exchanges.requests)
    kind = OTHER_METHOD
    if method == HEAD_WORD:
        kind = HEAD_METHOD
    elif method == CONNECT_WORD:
        kind = CONNECT_METHOD
    exchanges.methods[np.uint64(number % MOST_PIPELINED)] = kind
    exchanges.requests += 1
    return number


@kernel
def method_answered(exchanges):
    """The method of the request that the next response is for, as far as it is remembered."""
    waiting = exchanges.requests - exchanges.responses
    if waiting <= 0 or waiting > MOST_PIPELINED:
        return np.int64(OTHER_METHOD)
    return np.int64(exchanges.methods[np.uint64(exchanges.responses % MOST_PIPELINED)])


@kernel
def last_request_before(f, exchanges, acknowledged):
    """The exchange number of the last waiting request that the other side had, or NO_EXCHANGE."""
    found = np.int64(NO_EXCHANGE)
    number = exchanges.first_waiting
    for _ in range(exchanges.waiting):
        row = message_row(f, number)
        if row.number != number or np.int32(acknowledged - row.stream_end) < 0:
            break
        found = np.int64(row.exchange)
        number = row.next
    return found


@kernel
def realign(f, exchanges, segment, is_response):
    """After lost octets, count as if nothing is pipelined: the last request that the sender of this
    response had is the one that it answers.
    """
    if not is_response:
        exchanges.requests = max(exchanges.requests, exchanges.responses)
        return
    answered = np.int64(exchanges.requests) - 1
    if segment.has_acknowledged:
        known = last_request_before(f, exchanges, segment.acknowledged)
        answered = known if known != NO_EXCHANGE else answered
    exchanges.responses = max(exchanges.responses, answered)


@kernel
def is_informational(status):
    return 100 <= status < 200 and status != SWITCHING_PROTOCOLS


@kernel
def body_of_response(head, method):
    """RFC 9112, section 6.3."""
    is_tunnel = method == CONNECT_METHOD and 200 <= head.status < 300
    if is_tunnel or head.status == SWITCHING_PROTOCOLS:
        return TUNNELLED
    if method == HEAD_METHOD or is_informational(head.status) or head.status in (204, 304):
        return NO_BODY
    if head.chunked:
        return CHUNKED
    if head.content_length >= 0 and not head.coded:
        return BY_LENGTH
    return UNTIL_CLOSE


@kernel
def body_of_request(head):
    if head.chunked:
        return CHUNKED
    return BY_LENGTH if head.content_length > 0 else NO_BODY


@kernel
def count_exchange(exchanges, head):
    """Return (exchange number, kind of body)."""
    if not head.is_response:
        return add_request(exchanges, head.method), body_of_request(head)
    body = body_of_response(head, method_answered(exchanges))
    if exchanges.responses >= exchanges.requests:
        return np.int64(NO_EXCHANGE), body
    number = np.int64(exchanges.responses)
    if not is_informational(head.status):
        exchanges.responses += 1
    return number, body


@kernel
def add_call(f, stream, request, response, direction_number, timestamp, lacks):
    totals = f.totals[0]
    call = f.calls[np.uint64(totals.calls)]
    call.stream = stream
    call.request = request
    call.response = response
    call.direction = direction_number
    call.timestamp = timestamp
    call.lacks = lacks
    totals.calls += 1


@kernel
def put_waiting(f, exchanges, number, timestamp):
    """Queue request `number`; the oldest gives way when too many wait."""
    if exchanges.waiting == MOST_WAITING:
        give_up_waiting(f, exchanges, timestamp, NO_ANSWER)
    if exchanges.waiting > 0 and message_row(f, exchanges.last_waiting).number != (
        exchanges.last_waiting
    ):
        exchanges.waiting = 0  # the row is another stream's by now, and those before it too
    if exchanges.waiting == 0:
        exchanges.first_waiting = number
    else:
        message_row(f, exchanges.last_waiting).next = number
    exchanges.last_waiting = number
    exchanges.waiting += 1


@kernel
def take_waiting(f, exchanges):
    """Remove the oldest waiting request; return its number, or NO_MESSAGE if the ring lost it."""
    number = exchanges.first_waiting
    row = message_row(f, number)
    if row.number != number:  # overwritten, and with it the link to those behind
        exchanges.waiting = 0
        return np.int64(NO_MESSAGE)
    exchanges.first_waiting = row.next
    exchanges.waiting -= 1
    return number


@kernel
def give_up_waiting(f, exchanges, timestamp, lacks):
    """Make a call without an answer of the oldest waiting request."""
    number = take_waiting(f, exchanges)
    if is_message_kept(f, number):
        row = message_row(f, number)
        add_call(f, row.stream, number, NO_MESSAGE, row.direction, timestamp, lacks)


@kernel
def give_up_all_waiting(f, exchanges, timestamp, lacks):
    while exchanges.waiting > 0:
        give_up_waiting(f, exchanges, timestamp, lacks)


@kernel
def answer(f, exchanges, number):
    """Make the call that response `number` ends."""
    response = message_row(f, number)
    if is_informational(response.status):
        return
    request, lacks = np.int64(NO_MESSAGE), NO_REQUEST
    while response.exchange != NO_EXCHANGE and exchanges.waiting > 0:
        first = message_row(f, exchanges.first_waiting)
        if first.number != exchanges.first_waiting:
            exchanges.waiting = 0
            lacks = REQUEST_FORGOTTEN
            break
        if first.exchange > response.exchange:
            break
        if first.exchange == response.exchange:
            request = take_waiting(f, exchanges)
            lacks = NOTHING
            if not is_message_kept(f, request):
                request, lacks = np.int64(NO_MESSAGE), REQUEST_FORGOTTEN
            break
        give_up_waiting(f, exchanges, response.end_timestamp, ANSWER_LOST)
    add_call(
        f, response.stream, request, number, response.direction ^ 1, response.end_timestamp, lacks
    )


@kernel
def forget_overwritten(f, calls):
    """Take out of calls the messages that later ones of the same batch have overwritten; return
    how many calls lost their response, or all that they had.
    """
    lost = 0
    for row in range(len(calls)):
        call = calls[np.uint64(row)]
        if call.request != NO_MESSAGE and not is_message_kept(f, call.request):
            call.request = NO_MESSAGE
            call.lacks = REQUEST_FORGOTTEN
        if call.response != NO_MESSAGE and not is_message_kept(f, call.response):
            call.response = NO_MESSAGE
            call.lacks = REQUEST_FORGOTTEN
            lost += 1
    return lost


@kernel
def end_message(f, direction, segment, outcome):
    """End the message under way, if there is one; a response makes a call."""
    number = direction.message
    direction.message = NO_MESSAGE
    if number == NO_MESSAGE:
        return
    message = message_row(f, number)
    if message.number != number:
        f.totals[0].overwritten += 1
        return
    message.end_timestamp = segment.timestamp
    message.outcome = outcome
    if message.status != 0:
        answer(f, f.exchanges[np.uint64(segment.direction >> 1)], number)
