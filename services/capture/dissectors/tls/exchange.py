# mypy: ignore-errors
"""What a handshake's messages mean: who asks, what was chosen, and when nothing more can be read.

Until TLS 1.2 the server's certificates can be seen too; what comes after a ServerHello of TLS 1.3
is encrypted. Nothing is decrypted here, and after the handshake the stream is over. Functions that
return a truth return False for what TLS never says, which ends the dissection of the stream.
"""

import numpy as np

from services.capture.dissectors.arena import is_kept
from services.capture.dissectors.signatures import CLIENT, SERVER
from services.capture.dissectors.tls.hotfields import (
    BAD,
    TOO_LONG,
    is_old_hello,
    read_client_hello,
    read_server_hello,
)
from services.capture.dissectors.tls.names import SSL2, TLS13
from services.capture.dissectors.tls.rows import (
    ANSWER_LOST,
    CLIENT_ENDED,
    CUT,
    IS_NEW,
    IS_RESUMED,
    MALFORMED,
    NO_ANSWER,
    NO_HELLO,
    NO_REQUEST,
    NOBODY,
    NOTHING,
    OLD,
    OLD_ANSWER,
    REQUEST_CUT,
    RESPONSE_CUT,
    SERVER_ENDED,
    WHOLE,
    side_row,
)
from services.capture.dissectors.tls.wire import (
    CERTIFICATE,
    CLIENT_HELLO,
    CLOSE_NOTIFY,
    FATAL,
    OLD_HEAD,
    SERVER_HELLO,
    SERVER_HELLO_DONE,
    USER_CANCELED,
)
from services.capture.kernel import cold_kernel, kernel, read_u16

ENDS = (CLOSE_NOTIFY, USER_CANCELED)
"""Alerts that are no errors, and yet the last."""


@kernel
def problem_of(flow, client, server):
    """Return what the handshake lacks."""
    if flow.problem != NOTHING:
        return np.int64(flow.problem)
    if not client.told.is_there:
        return np.int64(NO_REQUEST)
    if not server.told.is_there:
        return np.int64(ANSWER_LOST if server.has_gap else NO_ANSWER)
    if client.lacks:
        return np.int64(REQUEST_CUT)
    return np.int64(RESPONSE_CUT if server.lacks else NOTHING)


@kernel
def copy_told(told, out):
    """Copy a row of TOLD."""
    out.hello_at, out.hello_length, out.hello = told.hello_at, told.hello_length, told.hello
    out.chain_at, out.chain_length, out.chain = told.chain_at, told.chain_length, told.chain
    out.name_at, out.name_length = told.name_at, told.name_length
    out.suite, out.version, out.alert = told.suite, told.version, told.alert
    out.is_there, out.retried, out.resumed = told.is_there, told.retried, told.resumed


@cold_kernel
def add_call(f, flow, number):
    """Make the call of what was seen of a handshake."""
    asked_by = CLIENT if flow.asked_by == NOBODY else np.int64(flow.asked_by)
    client, server = side_row(f, number, asked_by), side_row(f, number, asked_by ^ 1)
    if not client.told.is_there and not server.told.is_there:
        return
    totals = f.totals[0]
    call = f.calls[np.uint64(totals.calls)]
    copy_told(client.told, call.request)
    copy_told(server.told, call.response)
    call.stream = flow.stream
    call.start = client.begin if client.told.is_there else server.begin
    call.end = max(
        client.end if client.told.is_there else np.int64(0),
        server.end if server.told.is_there else np.int64(0),
    )
    call.request_size, call.response_size = client.length, server.length
    call.direction = flow.client ^ asked_by
    call.lacks = problem_of(flow, client, server)
    call.alert = flow.problem_alert
    totals.calls += 1


@kernel
def finish(f, flow, number):
    """The handshake is over, and with it what can be read of the stream."""
    if not flow.over:
        flow.over = 1
        add_call(f, flow, number)


@kernel
def settle(f, flow, number):
    """Finish when no more can be read: both sides have gone on to encrypt."""
    if not flow.chosen:
        return
    client, server = side_row(f, number, flow.asked_by), side_row(f, number, flow.asked_by ^ 1)
    if client.encrypted and (server.encrypted or flow.version >= TLS13):
        finish(f, flow, number)


@kernel
def end_part(mine, time):
    """What is told of a side goes until here."""
    mine.end, mine.length = time, mine.octets


@kernel
def take_change_cipher(f, flow, number, side, time):
    """What a side says next is encrypted."""
    mine = side_row(f, number, side)
    if side == flow.asked_by or flow.chosen:
        mine.encrypted = 1
    if flow.chosen and side != flow.asked_by and not flow.answered:
        # No ServerHelloDone before it: the session is an earlier one's (RFC 5246, 7.3).
        flow.answered = 1
        if mine.told.chain == NO_HELLO:
            mine.told.resumed = IS_RESUMED
        end_part(mine, time)
    settle(f, flow, number)


@kernel
def take_alert(f, flow, number, side, alert, time):
    """An alert is whole."""
    mine = side_row(f, number, side)
    if flow.asked_by == NOBODY:
        if side != SERVER:
            return False
        flow.understood, flow.asked_by = 1, CLIENT
    mine.told.is_there = 1
    mine.told.alert = 1 + alert
    if side != flow.asked_by:
        end_part(mine, time)
    if mine.alert_level == FATAL or alert in ENDS:
        flow.problem = CLIENT_ENDED if side == flow.asked_by else SERVER_ENDED
        flow.problem_alert = alert
        finish(f, flow, number)
    return True


@kernel
def ask(flow, mine, side, time, size):
    """A side has said what it offers."""
    flow.understood, flow.asked_by = 1, side
    mine.told.is_there = 1
    mine.end, mine.length = time, size


@kernel
def take_client_hello(f, flow, mine, side, at, length, is_whole, time):
    """A side offers something; its octets are in the arena."""
    if mine.told.is_there:  # the server asked for another one, which says the same
        mine.length = mine.octets
        return True
    begin = at % len(f.arena.octets)
    status, name_at, name_length = read_client_hello(
        f.arena.octets, begin, begin + length, is_whole
    )
    if status == BAD:
        return False
    ask(flow, mine, side, time, mine.octets)
    told = mine.told
    told.hello_at, told.hello_length, told.hello = at, length, WHOLE if is_whole else CUT
    told.name_at, told.name_length = name_at - begin, name_length
    mine.lacks = 0 if is_whole else 1
    flow.problem = MALFORMED if status == TOO_LONG else NOTHING
    return True


@kernel
def take_server_hello(f, flow, mine, side, at, length, is_whole):
    """A side has chosen, or asks for another offer."""
    begin = at % len(f.arena.octets)
    status, version, suite, is_retry, is_resumed, name_at, name_length = read_server_hello(
        f.arena.octets, begin, begin + length, is_whole
    )
    if status == BAD:
        return False
    flow.understood, flow.asked_by = 1, side ^ 1
    told = mine.told
    told.is_there = 1
    told.hello_at, told.hello_length, told.hello = at, length, WHOLE if is_whole else CUT
    told.version, told.suite = version, suite
    told.name_at, told.name_length = name_at - begin, name_length
    told.retried |= 1 if is_retry else 0
    told.resumed = told.alert = told.chain = 0  # a second one stands for all before it
    if not is_retry:
        flow.chosen, flow.version = 1, version
        if version >= TLS13:
            flow.answered = 1
            told.resumed = IS_RESUMED if is_resumed else IS_NEW
    return True


@cold_kernel
def take_message(f, flow, number, side, time):
    """A handshake message is complete, or nothing more of it will come."""
    mine = side_row(f, number, side)
    kind = mine.message_head >> 24
    at, length, is_whole = mine.at, np.int64(mine.kept), mine.cut == 0
    mine.message_head = mine.message_read = mine.message_left = 0
    mine.kept = mine.room = mine.cut = 0
    if length > 0 and not is_kept(f.arena, at):
        f.totals[0].forgotten += 1
        length, is_whole = np.int64(0), False
    if kind == CLIENT_HELLO and (flow.asked_by == NOBODY or flow.asked_by == side):
        if not take_client_hello(f, flow, mine, side, at, length, is_whole, time):
            return False
    elif kind == SERVER_HELLO and flow.asked_by != side:
        if not take_server_hello(f, flow, mine, side, at, length, is_whole):
            return False
        mine.lacks |= 0 if is_whole else 1
        end_part(mine, time)
        settle(f, flow, number)
    elif kind == CERTIFICATE and mine.told.is_there:
        told = mine.told
        told.chain_at, told.chain_length, told.chain = at, length, WHOLE if is_whole else CUT
        mine.lacks |= 0 if is_whole else 1
    elif not flow.understood:
        return False
    if side != flow.asked_by and flow.chosen and not flow.answered:
        end_part(mine, time)
        flow.answered = kind == SERVER_HELLO_DONE
    return True


@kernel
def take_old_hello(f, flow, number, time):
    """A hello in the form of SSL 2.0 is whole."""
    mine = side_row(f, number, CLIENT)
    at, length = mine.at, np.int64(mine.kept)
    begin = at % len(f.arena.octets)
    is_here = mine.cut == 0 and is_kept(f.arena, at)
    mine.kept = mine.room = mine.cut = 0
    if not is_here or not is_old_hello(f.arena.octets, begin, begin + length):
        return False
    flow.old_version = read_u16(f.arena.octets, begin)
    ask(flow, mine, CLIENT, time, OLD_HEAD + length)
    told = mine.told
    told.hello_at, told.hello_length, told.hello = at, length, OLD
    return True


@kernel
def take_old_answer(f, flow, number, length, time):
    """After a hello that offers SSL 2.0 alone, what the server says is not read."""
    server = side_row(f, number, SERVER)
    server.told.is_there, server.told.hello = 1, OLD_ANSWER
    server.told.version = SSL2
    server.length, server.end = length, time
    finish(f, flow, number)
