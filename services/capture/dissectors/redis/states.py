"""States of a direction of a Redis connection."""

LOST = 0  # octets are missing, or it is new: not known where a message begins
BETWEEN = 1  # between messages
START = 2  # at the beginning of a line inside a message
LINE = 3  # in a line
LINE_FEED = 4  # before the LF of a line
STRING = 5  # in a counted string
AFTER_STRING = 6  # before its CR
STRING_LINE_FEED = 7  # before its LF
OVER = 8  # nothing more is read
