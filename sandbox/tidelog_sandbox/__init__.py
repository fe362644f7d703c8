"""AWS on this machine for one stack: the template itself deployed, the functions in processes of their own.

:class:`Sandbox` is all that most callers need, and :class:`Postgres` is a database for it.
"""

from tidelog_sandbox.emails import Email
from tidelog_sandbox.errors import SandboxError
from tidelog_sandbox.functions import Invocation
from tidelog_sandbox.postgres import Postgres
from tidelog_sandbox.sandbox import Sandbox

__all__ = ["Email", "Invocation", "Postgres", "Sandbox", "SandboxError"]
