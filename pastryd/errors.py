"""The exceptions of the whole project.

What a peer does wrong is `RemoteProtocolError`: caught in one place, counted, dropped. What our
caller does wrong is a `PastryError` that says what to do. Anything else is our bug and propagates.
"""


class PastryError(Exception):
    """Something that a user or a caller can act on; `str()` is one line that says what to do."""


class RemoteProtocolError(Exception):
    """Bytes from the network that are not what the protocol allows. Never leaves the core."""


class LocalProtocolError(PastryError):
    """A call that our own API does not allow (too large, wrong order, wrong type)."""


class ConfigError(PastryError):
    """A setting that cannot be used."""


class StoreError(PastryError):
    """The store cannot be opened, or failed while it was open."""


class StoreLostError(StoreError):
    """The store gives nothing back and takes nothing any more until it is opened again."""


class NotFoundError(PastryError):
    """The whole replica set was asked, and nobody has it."""


class UnreachableError(PastryError):
    """Nobody answered in time; the blob may well exist."""


class UnderReplicatedError(PastryError):
    """Stored durably, but on fewer nodes than wanted."""


class CorruptError(PastryError):
    """Bytes arrived that do not hash to what was asked for, and no good copy was found."""
