"""SNS as the real one behaves, where moto does not.

moto delivers nothing to a subscription by email, and takes a subject that the real one refuses. Here every such
subscription counts as confirmed, and what would be mailed is kept.
"""

import json
import re
from datetime import UTC, datetime
from typing import Any

from moto.sns.exceptions import InvalidParameterValue
from moto.sns.models import SNSBackend, Subscription

from tidelog_sandbox import notifications
from tidelog_sandbox.emails import Email
from tidelog_sandbox.mending import mend

_SUBJECT = re.compile(rf"[ -~]{{1,{notifications.SUBJECT_LIMIT}}}")
_DEFAULT_SUBJECT = "AWS Notification Message"
_DEFAULT_NAME = "AWS Notifications"
_sent: list[Email] = []


def sent(first: int) -> list[dict[str, str]]:
    """The emails that were sent, as documents, but for so many of the first."""
    return [email.document() for email in _sent[first:]]


def install() -> None:
    """Mend moto's SNS."""

    def publish(backend: SNSBackend, message: str, *args: Any, subject: str | None = None, **kwargs: Any) -> str:
        if subject is not None and not _SUBJECT.fullmatch(subject):
            raise InvalidParameterValue("Invalid parameter: Subject")
        return str(publish_any(backend, message, *args, subject=subject, **kwargs))

    def deliver(subscription: Subscription, message: str, *args: Any, **kwargs: Any) -> None:
        deliver_elsewhere(subscription, message, *args, **kwargs)
        matcher = subscription._filter_policy_matcher  # noqa: SLF001  # moto's own
        if subscription.protocol != "email" or (
            matcher is not None and not matcher.matches(kwargs["message_attributes"], message)
        ):
            return
        if kwargs["message_structure"] == "json":
            message = subscription._parse_message_structure(message, "email")  # noqa: SLF001  # the same
        _sent.append(_email(subscription, message, kwargs["subject"]))

    publish_any = mend(SNSBackend, "publish", publish)
    deliver_elsewhere = mend(Subscription, "publish", deliver)


def _email(subscription: Subscription, message: str, subject: str | None) -> Email:
    topic = subscription.topic
    region = topic.arn.split(":")[3]
    return Email(
        sent_at=datetime.now(UTC),
        sender=f"{topic.display_name or _DEFAULT_NAME} <no-reply@sns.amazonaws.com>",
        to=subscription.endpoint,
        subject=subject or _DEFAULT_SUBJECT,
        body=f"""{_readable(message)}


--
If you wish to stop receiving notifications from this topic, please click or visit the link below to unsubscribe:
https://sns.{region}.amazonaws.com/unsubscribe.html?SubscriptionArn={subscription.arn}&Endpoint={subscription.endpoint}

Please do not reply directly to this email. If you have any questions or comments regarding this email, please contact \
us at https://aws.amazon.com/support
""",
    )


def _readable(message: str) -> str:
    """A message as an email has it: as it is, unless it is CloudWatch's."""
    try:
        return notifications.text(json.loads(message))
    except (KeyError, TypeError, ValueError):
        return message
