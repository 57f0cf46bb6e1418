"""The exceptions of the whole project.

What a peer does wrong is `RemoteProtocolError`: caught in one place, counted, dropped. What our
caller does wrong is a `PastryError` that says what to do. Anything else is our bug and propagates.
"""

import errno


class PastryError(Exception):
    """Something that a user or a caller can act on; `str()` is one line that says what to do."""


def shortage(error: BaseException) -> str | None:
    """Return what the machine has run short of, and what to do, if that is what `error` means."""
    if isinstance(error, MemoryError):
        return (
            "out of memory; give it more: a limit may be set by ulimit -v or by the service manager"
        )
    if isinstance(error, RuntimeError) and str(error) == "can't start new thread":
        return (
            "the system lets it start no thread; raise the limit of processes (ulimit -u, "
            "TasksMax) or of memory"
        )
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return f"{error.strerror}; raise the limit of open files (ulimit -n)"
    return None


class UnexpectedError(PastryError):
    """A failure of the system or of ours that stopped a node; its log has the rest."""


class RemoteProtocolError(Exception):
    """Bytes from the network that are not what the protocol allows. Never leaves the core."""


class LocalProtocolError(PastryError):
    """A call that our own API does not allow (too large, wrong order, wrong type)."""


class ConfigError(PastryError):
    """A setting that cannot be used."""


class StoreError(PastryError):
    """The store cannot be opened, or failed while it was open."""


class SupersededError(PastryError):
    """Another node runs under this one's identity, and was started later."""


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
