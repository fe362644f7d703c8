"""Emails that SNS would have sent."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime
from typing import Any

from tidelog_sandbox.cloud import Cloud

_RECHECK_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Email:
    """An email. As text it is what a reader of mail shows.

    Attributes:
        sent_at: when, in UTC.
        sender: the display name of the topic, and the address of SNS.
        to: the address that is subscribed.
        subject: one line.
        body: the text, with the footer of SNS.
    """

    sent_at: datetime
    sender: str
    to: str
    subject: str
    body: str

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> "Email":
        """One that :meth:`document` has written."""
        return cls(**{**document, "sent_at": datetime.fromisoformat(document["sent_at"])})

    def document(self) -> dict[str, str]:
        """Itself as JSON can carry it."""
        return {
            "sent_at": self.sent_at.isoformat(),
            "sender": self.sender,
            "to": self.to,
            "subject": self.subject,
            "body": self.body,
        }

    def __str__(self) -> str:
        return (
            f"From: {self.sender}\nTo: {self.to}\nDate: {format_datetime(self.sent_at)}\n"
            f"Subject: {self.subject}\n\n{self.body}"
        )


class Mailbox:
    """Everything that a cloud has mailed, to whomever."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._read: tuple[Email, ...] = ()

    @property
    def emails(self) -> tuple[Email, ...]:
        """The emails, oldest first."""
        known = self._read
        self._read = known + tuple(Email.read(document) for document in self._cloud.emails(len(known)))
        return self._read

    def wait_for(self, matches: Callable[[Email], bool], timeout: float, check: Callable[[], object]) -> Email:
        """The oldest email that matches, which may have been sent long ago.

        Args:
            matches: says of an email whether it is the one.
            timeout: seconds.
            check: is called while waiting; what it raises ends the wait.

        Raises:
            TimeoutError: none has come in time; the message says what did.
        """
        end = time.monotonic() + timeout
        seen = 0
        while True:
            emails = self.emails
            for email in emails[seen:]:
                if matches(email):
                    return email
            seen = len(emails)
            check()
            if time.monotonic() >= end:
                came = ", ".join(f"{email.subject!r} to {email.to}" for email in emails) or "nothing"
                raise TimeoutError(f"no such email after {timeout:g} seconds; what came: {came}")
            time.sleep(_RECHECK_SECONDS)
