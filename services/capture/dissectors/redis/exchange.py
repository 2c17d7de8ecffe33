# mypy: ignore-errors
"""Which reply answers which command: they have no numbers, but come in the order of the commands.

After lost octets a flow is unsure. A command says what its client had read by then, so where the
replies reach that point, and the client does not send while replies are coming, the next reply
answers this command. Until then replies are not taken for anything that they may not be.
"""

import numpy as np

from services.capture.dissectors.dissector import IS_SERVER, OTHER_MISSED
from services.capture.dissectors.redis.rows import (
    ALL_SILENT,
    ANSWER_LOST,
    ANSWERED,
    FORGOTTEN,
    IS_OVER,
    NEXT_SILENT,
    NO_ANSWER,
    NO_MESSAGE,
    NO_REQUEST,
    NOTHING,
    PUSHED,
    add_failed,
    is_message_kept,
    message_row,
)
from services.capture.dissectors.redis.states import BETWEEN, LOST, OVER, STRING
from services.capture.dissectors.redis.wire import (
    ARRAY,
    CLIENT_COMMAND,
    MONITOR,
    OFF,
    PUBLISHED,
    PUSH,
    REPLICATION,
    REPLY_ARGUMENT,
    SKIP,
    SUBSCRIPTIONS,
)
from services.capture.kernel import kernel, read_u8

MOST_SEARCHED = 1 << 12  # waiting commands that are looked at, for one segment
PAUSE = 50_000_000  # ns: longer than most replies take, so that none is under way
COMPARED = 7  # octets of a word, see wire.word
CR, LF, SPACE = 0x0D, 0x0A, 0x20


@kernel
def line_after(octets, position, end):
    """Return the position behind the next LF, or `end`."""
    while position < end and read_u8(octets, position) != LF:
        position += 1
    return min(position + 1, end)


@kernel
def read_word(octets, position, end, skipped):
    """Return a string of a list, or the first of another message, as wire.word does, 0 if it has
    none; before it `skipped` ones without line feeds.
    """
    first = read_u8(octets, position) if position < end else LF
    if first == ARRAY or first == PUSH:
        for _ in range(2 + 2 * skipped):
            position = line_after(octets, position, end)
    length = np.int64(0)
    word = np.int64(0)
    while position < end and length < 255:
        octet = read_u8(octets, position)
        if octet == CR or octet == LF or octet == SPACE:
            break
        if length < COMPARED:
            word = word << 8 | (octet | 0x20 if 0x41 <= octet <= 0x5A else octet)
        length += 1
        position += 1
    for _ in range(length, COMPARED):
        word <<= 8
    return word << 8 | length


@kernel
def add_message(f, direction, segment):
    """Make a row of the message that ended; return its number."""
    totals = f.totals[0]
    totals.messages += 1
    number = totals.messages
    row = message_row(f, number)
    row.number = number
    row.stream = segment.stream
    row.at = direction.at
    row.size = direction.size
    row.first_time = direction.first_time
    row.time = segment.timestamp
    row.next = NO_MESSAGE
    row.kept = direction.kept
    row.seen = segment.acknowledged
    row.has_seen = segment.has_acknowledged
    row.direction = segment.direction & 1
    row.cut = direction.cut
    row.paused = 0
    at = direction.at % len(f.arena.octets)
    row.word = read_word(f.arena.octets, at, at + direction.kept, 0)
    return number


@kernel
def add_call(f, flow, request, response, direction, time, lacks):
    totals = f.totals[0]
    call = f.calls[np.uint64(totals.calls)]
    call.stream = flow.stream
    call.request = request
    call.response = response
    call.direction = direction
    call.time = time
    call.lacks = lacks
    totals.calls += 1


@kernel
def put_waiting(f, flow, number):
    if flow.waiting > 0 and message_row(f, flow.last_waiting).number != flow.last_waiting:
        f.totals[0].forgotten += flow.waiting
        flow.waiting = 0  # the row is another message's by now, and those before it too
    if flow.waiting == 0:
        flow.first_waiting = number
    else:
        message_row(f, flow.last_waiting).next = number
    flow.last_waiting = number
    flow.waiting += 1


@kernel
def take_waiting(f, flow):
    """Remove the oldest waiting command; return its number, or NO_MESSAGE if it is overwritten."""
    number = flow.first_waiting
    row = message_row(f, number)
    if row.number != number:
        f.totals[0].forgotten += flow.waiting
        flow.waiting = 0
        return np.int64(NO_MESSAGE)
    flow.first_waiting = row.next
    flow.waiting -= 1
    return number


@kernel
def give_up(f, flow, time, lacks):
    """Make a call without a reply of the oldest waiting command."""
    number = take_waiting(f, flow)
    if number != NO_MESSAGE and flow.understood:
        add_call(f, flow, number, NO_MESSAGE, message_row(f, number).direction, time, lacks)


@kernel
def begin_direction(direction, state):
    direction.kept = direction.size = direction.room = direction.skip = 0
    direction.taken = 0
    direction.cut = 0
    direction.state = state


@kernel
def begin_flow(f, flow, segment, marks):
    """Only who the client is is known of a new stream; replies begin where it has read to."""
    flow.stream = segment.stream
    flow.waiting = flow.before = 0
    flow.last_time = segment.timestamp
    flow.unsure = 1
    flow.has_hole = flow.has_orphan = flow.has_offset = 0
    flow.strict = flow.pipelines = flow.listens = flow.understood = 0
    flow.doubtful = 1 if marks & OTHER_MISSED else 0
    flow.silent = ANSWERED
    client = segment.direction ^ (marks & IS_SERVER)
    begin_direction(f.directions[np.uint64(client)], BETWEEN)
    begin_direction(f.directions[np.uint64(client ^ 1)], LOST)


@kernel
def end_flow(f, flow, time):
    """The stream is over, or not read any more."""
    while flow.waiting > 0:
        give_up(f, flow, time, NO_ANSWER)
    flow.stream = 0


@kernel
def is_unanswered(f, flow, row):
    """Whether a command gets no reply, as its client wants it."""
    before = flow.silent
    if before == NEXT_SILENT:
        flow.silent = ANSWERED
    if row.word == CLIENT_COMMAND:
        at = row.at % len(f.arena.octets)
        end = at + row.kept
        if read_word(f.arena.octets, at, end, 1) == REPLY_ARGUMENT:
            how = read_word(f.arena.octets, at, end, 2)
            flow.silent = ALL_SILENT if how == OFF else NEXT_SILENT if how == SKIP else ANSWERED
            return how == OFF or how == SKIP
    return before != ANSWERED


@kernel
def be_unsure(flow):
    """Replies turned out to be to other commands: pair again only after a pause."""
    flow.unsure = flow.strict = 1
    flow.has_hole = flow.has_orphan = 0
    flow.before = 0


@kernel
def take_command(f, flow, direction, segment):
    """A command is whole."""
    at = direction.at % len(f.arena.octets)
    if direction.kept > 0 and read_word(f.arena.octets, at, at + direction.kept, 0) == 0:
        return  # nothing is asked, and nothing answered
    number = add_message(f, direction, segment)
    row = message_row(f, number)
    row.paused = segment.timestamp - flow.last_time > PAUSE
    replies = f.directions[np.uint64(segment.direction ^ 1)]
    if not flow.has_offset:
        flow.has_offset = 1
        replies.taken = row.seen if row.has_seen else 0
    if flow.waiting > 0 and not flow.unsure and row.has_seen:
        oldest = message_row(f, flow.first_waiting)
        if oldest.number == flow.first_waiting and oldest.has_seen and oldest.seen != row.seen:
            flow.pipelines = 1
            if flow.doubtful:
                be_unsure(flow)
    flow.has_orphan = 0
    if direction.first == ARRAY:
        flow.understood = 1
    if row.word in SUBSCRIPTIONS or row.word == MONITOR:
        flow.listens = 1
    if is_unanswered(f, flow, row):
        add_call(f, flow, number, NO_MESSAGE, segment.direction & 1, segment.timestamp, NOTHING)
        return
    put_waiting(f, flow, number)
    if row.word in REPLICATION:
        end_flow(f, flow, segment.timestamp)
        direction.state = replies.state = OVER
        flow.stream = segment.stream
        add_failed(f, segment.stream, IS_OVER)


@kernel
def is_subscription(f, flow):
    """Whether the oldest waiting command is about channels."""
    row = message_row(f, flow.first_waiting)
    return flow.waiting > 0 and row.number == flow.first_waiting and row.word in SUBSCRIPTIONS


@kernel
def is_pushed(f, flow, kind, word):
    """Whether a value of the server answers no command: what a channel brings, and confirmations
    of more channels than one.
    """
    if kind != PUSH and (kind != ARRAY or not flow.listens):
        return False
    if word in SUBSCRIPTIONS:
        return flow.unsure or not is_subscription(f, flow)
    return kind == PUSH or word in PUBLISHED


@kernel
def take_reply(f, flow, direction, segment):
    """A value of the server is whole."""
    number = add_message(f, direction, segment)
    kind = np.int64(direction.first)
    client, time = (segment.direction ^ 1) & 1, segment.timestamp
    if is_pushed(f, flow, kind, message_row(f, number).word):
        add_call(f, flow, NO_MESSAGE, number, client, time, PUSHED)
    elif flow.unsure and flow.before <= 0:
        if not flow.has_hole:
            flow.has_hole = 1
            flow.hole_at = direction.start
        add_call(f, flow, NO_MESSAGE, number, client, time, NO_REQUEST)
    elif flow.waiting == 0:
        if not flow.has_orphan:
            flow.has_orphan = 1
            flow.orphan_at = direction.start
        add_call(f, flow, NO_MESSAGE, number, client, time, PUSHED if flow.listens else NO_REQUEST)
        if flow.doubtful and not flow.listens:
            be_unsure(flow)
    else:
        request = take_waiting(f, flow)
        flow.before -= 1 if flow.unsure else 0
        flow.understood = 1
        lacks = NOTHING if request != NO_MESSAGE else FORGOTTEN
        add_call(f, flow, request, number, client, time, lacks)


@kernel
def take_gap(f, flow, direction, segment, server):
    """Octets are lost. Inside a string only the string lacks them; else the place is lost."""
    missing = np.int64(segment.length)
    direction.taken += np.uint32(missing)
    if direction.state == OVER:
        return
    if direction.state == STRING and 0 < missing <= direction.skip:
        direction.skip -= missing
        direction.size += missing
        direction.cut = 1
        return
    direction.state = LOST
    replies = f.directions[np.uint64(segment.direction ^ (0 if server else 1))]
    if flow.unsure:
        if flow.has_hole or flow.before > 0:
            flow.strict = 1
        elif not server:
            flow.has_hole = 1
            flow.hole_at = replies.taken
    elif not server:
        flow.before = flow.waiting
        flow.has_hole = flow.before == 0
        flow.hole_at = flow.orphan_at if flow.has_orphan else replies.taken
    flow.unsure = 1
    if server:
        flow.before = 0


@kernel
def answers(flow, row, offset):
    """Whether a waiting command is what the reply at this offset answers."""
    if (flow.pipelines or flow.strict) and not row.paused:
        return False
    if not row.has_seen:
        return offset == 0 and not flow.has_hole
    return row.seen == offset and (
        not flow.has_hole or np.int32(np.uint32(row.seen - flow.hole_at)) > 0
    )


@kernel
def realign(f, flow, direction, segment):
    """If the reply that begins here can only answer one waiting command, be sure again."""
    if direction.state != LOST and direction.state != BETWEEN:
        return
    number = flow.first_waiting
    for _ in range(min(np.int64(flow.waiting), MOST_SEARCHED)):
        row = message_row(f, number)
        if row.number != number:
            f.totals[0].forgotten += flow.waiting
            flow.waiting = 0
            return
        if answers(flow, row, direction.taken):
            while flow.first_waiting != number:
                give_up(f, flow, segment.timestamp, ANSWER_LOST)
            flow.unsure = flow.has_hole = flow.strict = 0
            flow.doubtful = flow.doubtful and not row.paused
            flow.before = 0
            direction.state = BETWEEN
            return
        number = row.next


@kernel
def forget_overwritten(f, calls):
    """Take out of calls the messages that later ones have overwritten; return how many."""
    lost = 0
    for row in range(len(calls)):
        call = calls[np.uint64(row)]
        if call.request != NO_MESSAGE and not is_message_kept(f, call.request):
            call.request = NO_MESSAGE
            call.lacks = FORGOTTEN
            lost += 1
        if call.response != NO_MESSAGE and not is_message_kept(f, call.response):
            call.response = NO_MESSAGE
            call.lacks = FORGOTTEN
            lost += 1
    return lost
