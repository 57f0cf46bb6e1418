"""The small numbers inside `Request`, `Answer` and `Stored`: what a client asks for, how it ended.

Append-only, as message tags are. Who acts on them is not this module's business.
"""

from enum import IntEnum


class Verb(IntEnum):
    """What a client asks its access node for (`Request.verb`)."""

    GET = 1
    """The item `name`: answered OK with it, INDEX with entries, or why not."""
    PUT = 2
    """Keep the item `name` of `number` bytes: inline in `data`, else pulled from the client."""
    STAT = 3
    """Where the copies of `name` lie: a JSON document."""
    PING = 4
    """Are you there, and ready?"""
    TRACE = 5
    """The route to the root of `name`: a JSON document."""
    STATUS = 6
    """A node's state: the access node's own, or with a 16-byte id in `name` another one's."""


class AnswerStatus(IntEnum):
    """How a `Request` ended (`Answer.status`)."""

    OK = 0
    PENDING = 1
    """The access node is still at work; go on asking."""
    NOT_FOUND = 2
    """The whole replica set was asked."""
    UNREACHABLE = 3
    UNDER_REPLICATED = 4
    """Durable, but on fewer nodes (`number`) than wanted."""
    FULL = 5
    BAD_REQUEST = 6
    CORRUPT = 7
    BUSY = 8
    NOT_READY = 9
    """The access node has not joined its ring yet."""
    INDEX = 10
    """GET found index entries: `data` is the msgpack list of the records' bytes."""


class StoreStatus(IntEnum):
    """How a `Store` ended (`Stored.status`)."""

    OK = 0
    FULL = 1
    FAILED = 2
    CORRUPT = 3
    BUSY = 4
    UNAVAILABLE = 5
