"""What can go wrong, in one tree.

    TidelogError
    ├── Retryable                      the same work may succeed later
    │   ├── DatabaseUnreachable        (ConnectionError)
    │   ├── DatabaseBusy               (TimeoutError)
    │   │   └── OutOfTime              the database did not answer within the time there was
    │   ├── DatabaseChanged            another one answers than before
    │   ├── ReplicaBehind
    │   ├── StoreUnreachable           (ConnectionError)
    │   └── Conflict                   another worker is faster again and again
    └── Permanent                      somebody has to change something first
        ├── AccessDenied               (PermissionError)
        ├── InvalidMessage             (ValueError)
        ├── InvalidSetting             (ValueError)
        ├── NotIngestible              (ValueError)
        ├── SegmentExists              (FileExistsError)
        ├── SequenceBroken             (ValueError)
        ├── UnknownColumn              (KeyError)
        ├── UnknownTable               (KeyError)
        └── UnreadableData             (ValueError)

Each is also the builtin that a Python reader expects. A message never holds a secret or a row's value.
"""

from __future__ import annotations


class TidelogError(Exception):
    """An operation failed.

    Attributes:
        operation: what was being done, such as "read".
        subject: what it was done to, most often a table.
        reason: why it failed.
        hint: what a person can do next; may be empty.
    """

    def __init__(self, operation: str, subject: object, reason: str, hint: str = "") -> None:
        self.operation = operation
        self.subject = str(subject)
        self.reason = reason.rstrip(".")
        self.hint = hint
        super().__init__(operation, self.subject, self.reason, hint)

    @property
    def what(self) -> str:
        """What failed, without the hint."""
        return f"{self.operation} {self.subject}: {self.reason}".replace(" :", ":")

    def __str__(self) -> str:
        return f"{self.what}. {self.hint}" if self.hint else self.what


class Retryable(TidelogError):
    """The same work may succeed later without anybody's doing."""


class Permanent(TidelogError):
    """The same work fails again until somebody changes something."""


class DatabaseUnreachable(Retryable, ConnectionError):
    """The database refused, dropped or never answered a connection."""


class DatabaseBusy(Retryable, TimeoutError):
    """The database gave up on a statement: a timeout, a lock, a deadlock, a conflict with recovery."""


class OutOfTime(DatabaseBusy):
    """A statement took longer than the time there was for it, or somebody cancelled it."""


class DatabaseChanged(Retryable):
    """Another database answers than the one that a plan was made on: the table's next run begins a new timeline."""


class ReplicaBehind(Retryable):
    """The standby that answered has not yet replayed what an earlier run has read."""


class StoreUnreachable(Retryable, ConnectionError):
    """S3, SQS, Parameter Store or Secrets Manager failed or throttled."""


class Conflict(Retryable):
    """Other workers took every offset that was tried."""


class AccessDenied(Permanent, PermissionError):
    """The database or AWS refused for want of a privilege or of the right password."""


class InvalidMessage(Permanent, ValueError):
    """A work message that can't be understood."""


class InvalidSetting(Permanent, ValueError):
    """The environment or a parameter holds a value that can't be used."""


class NotIngestible(Permanent, ValueError):
    """A relation that has no row versions of its own: a view, a foreign table."""


class SegmentExists(Permanent, FileExistsError):
    """The sequential id was used before."""


class SequenceBroken(Permanent, ValueError):
    """A sequential id that is not one greater than the previous."""


class UnknownColumn(Permanent, KeyError):
    """No such column."""


class UnknownTable(Permanent, KeyError):
    """No such table, in the database or in the state."""


class UnreadableData(Permanent, ValueError):
    """Stored data that the database itself cannot give out, or that is not what tidelog wrote."""
