"""The one error of the sandbox."""


class SandboxError(RuntimeError):
    """Something in the sandbox could not be done.

    The message says which operation failed on which subject and, where there is one, what to do about it.
    """
