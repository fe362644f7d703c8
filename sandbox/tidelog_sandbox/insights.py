"""CloudWatch Logs Insights, as far as dashboards and saved queries of a template use it: read, and run over log lines.

A query is commands with a bar between them, of which these are known: ``fields``, ``display``, ``filter``, ``stats``,
``sort`` and ``limit``; before them may stand ``SOURCE`` with the name of a log group, as in a dashboard's widget.
https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_QuerySyntax.html
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tidelog_sandbox.answers import FUNCTIONS, STEPS, TOTALS, Command, Expression, Line, Named
from tidelog_sandbox.errors import SandboxError

_TOKEN = re.compile(
    r"""\s*(?:(?P<text>"(?:[^"\\]|\\.)*"|'[^']*')|(?P<span>\d+[smhd]\b)
    |(?P<number>\d+(?:\.\d+)?)|(?P<field>`[^`]+`|@?[A-Za-z_][\w.]*)|(?P<sign><=|>=|!=|[-=<>+*/(),\[\]|]))""",
    re.VERBOSE,
)
_PATTERN = re.compile(r"\s*(?P<pattern>/(?:[^/\\]|\\.)+/)")
_RESERVED = {"as", "by", "and", "or", "not", "like", "in", "asc", "desc"}
_SPANS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True, slots=True)
class Query:
    """A query that was read.

    Attributes:
        sources: the log groups that it names itself.
        commands: its commands, in order.
    """

    sources: tuple[str, ...]
    commands: tuple[Command, ...]

    @property
    def fields(self) -> frozenset[str]:
        """The fields of log lines that it uses: not those that it makes itself."""
        used, made = set[str](), set[str]()
        for command in self.commands:
            named = [*command.arguments, *command.by]
            used |= {field for each in named for field in _fields(each.expression)} - made
            made |= {each.name for each in named if each.expression != ("field", each.name)}
            if command.word == "stats":
                made |= {each.name for each in named}
        return frozenset(used)

    def run(self, lines: Sequence[Line]) -> list[dict[str, Any]]:
        """Its answer over the lines of its log groups, oldest first; each line has its fields, and ``@timestamp``."""
        rows = [dict(line) for line in lines]
        for command in self.commands:
            rows = STEPS[command.word](command, rows)
        return rows


def read(text: str) -> Query:
    """Read a query.

    Raises:
        SandboxError: it is none, or has what the sandbox does not know.
    """
    commands = [list(part) for part in _split(_tokens(text))]
    sources = []
    while commands and commands[0][:1] == [("field", "SOURCE")]:
        sources += [value for kind, value in commands.pop(0)[1:] if kind == "text"]
    if not commands:
        raise SandboxError(f"read the query {text!r}: it has no command")
    return Query(tuple(sources), tuple(_Reader(tokens, text).command() for tokens in commands))


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    place, before = 0, ""
    while text[place:].strip():
        found = (_PATTERN if before == "like" else _TOKEN).match(text, place)  # elsewhere a slash divides
        if not found or not found.lastgroup:
            raise SandboxError(f"read the query {text!r}: what is {text[place:].strip()[:20]!r}?")
        token = found[found.lastgroup]
        yield found.lastgroup, token[1:-1] if found.lastgroup in ("text", "pattern") else token
        place, before = found.end(), token


def _split(tokens: Iterator[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    part: list[tuple[str, str]] = []
    for token in tokens:
        if token == ("sign", "|"):
            yield part
            part = []
        else:
            part.append(token)
    yield part


class _Reader:
    """Reads one command."""

    def __init__(self, tokens: Sequence[tuple[str, str]], text: str) -> None:
        self._tokens = list(tokens)
        self._text = text

    def command(self) -> Command:
        word = self._take("field")
        if word not in STEPS:
            raise self._fault(f"the sandbox does not know the command {word}")
        if word == "filter":
            command = Command(word, (Named(self._either(), word),))
        elif word == "limit":
            command = Command(word, (Named(("value", int(self._take("number"))), word),))
        elif word == "sort":
            command = Command(word, tuple(self._list(self._ordered)))
        else:
            arguments = tuple(self._list(self._named))
            command = Command(word, arguments, tuple(self._list(self._named)) if self._took("by") else ())
            if command.by and word != "stats":
                raise self._fault(f"{word} has no by")
        if self._tokens:
            raise self._fault(f"what is {self._tokens[0][1]!r}?")
        if word == "stats" and not all(_is_total(each.expression) for each in command.arguments):
            raise self._fault("stats takes functions of many lines, such as sum")
        return command

    def _list(self, read_one: Callable[[], Named]) -> Iterator[Named]:
        yield read_one()
        while self._took(","):
            yield read_one()

    def _named(self) -> Named:
        expression = self._either()
        name = self._take("field") if self._took("as") else None
        if name in _RESERVED:
            raise self._fault(f"{name} is a word of the language")
        return Named(expression, name or _shown(expression))

    def _ordered(self) -> Named:
        expression = self._sum()
        return Named(expression, "desc" if self._took("desc") or not self._took("asc") else "asc")

    def _either(self) -> Expression:
        found = self._both()
        while self._took("or"):
            found = ("or", found, self._both())
        return found

    def _both(self) -> Expression:
        found = self._compared()
        while self._took("and"):
            found = ("and", found, self._compared())
        return found

    def _compared(self) -> Expression:
        if self._took("not"):
            return ("not", self._compared())
        left = self._sum()
        for sign in ("=", "!=", "<=", ">=", "<", ">"):
            if self._took(sign):
                return (sign, left, self._sum())
        if self._took("like"):
            return ("like", left, self._take("pattern"))
        if self._took("in"):
            self._take("sign", "[")
            values = tuple(each.expression for each in self._list(self._named))
            self._take("sign", "]")
            return ("in", left, *values)
        return left

    def _sum(self) -> Expression:
        found = self._product()
        while self._tokens and self._tokens[0] in (("sign", "+"), ("sign", "-")):
            found = (self._tokens.pop(0)[1], found, self._product())
        return found

    def _product(self) -> Expression:
        found = self._one()
        while self._tokens and self._tokens[0] in (("sign", "*"), ("sign", "/")):
            found = (self._tokens.pop(0)[1], found, self._one())
        return found

    def _one(self) -> Expression:
        if self._took("("):
            found = self._either()
            self._take("sign", ")")
            return found
        if not self._tokens:
            raise self._fault("something is missing at the end")
        kind, token = self._tokens.pop(0)
        match kind:
            case "text":
                return ("value", token)
            case "number":
                return ("value", float(token) if "." in token else int(token))
            case "span":
                return ("value", int(token[:-1]) * _SPANS[token[-1]])
            case "field" if token not in _RESERVED:
                return self._call(token) if self._took("(") else ("field", token.strip("`"))
        raise self._fault(f"{token!r} can't stand there")

    def _call(self, function: str) -> Expression:
        if function not in TOTALS and function not in FUNCTIONS:
            raise self._fault(f"the sandbox does not know the function {function}")
        if function == "count" and self._took("*"):
            arguments: tuple[Expression, ...] = ()
        else:
            arguments = tuple(each.expression for each in self._list(self._named))
        self._take("sign", ")")
        return ("call", function, *arguments)

    def _took(self, token: str) -> bool:
        """Take a token if it is the next."""
        if self._tokens and self._tokens[0][1] == token and self._tokens[0][0] in ("field", "sign"):
            del self._tokens[0]
            return True
        return False

    def _take(self, kind: str, token: str | None = None) -> str:
        if not self._tokens or self._tokens[0][0] != kind or token not in (None, self._tokens[0][1]):
            raise self._fault(f"{token or f'a {kind}'} is missing")
        return self._tokens.pop(0)[1]

    def _fault(self, reason: str) -> SandboxError:
        return SandboxError(f"read the query {self._text!r}: {reason}")


def _shown(expression: Expression) -> str:
    match expression:
        case ("field" | "value", what):
            return str(what)
        case ("call", function, *arguments):
            return f"{function}({', '.join(map(_shown, arguments)) or '*'})"
    return str(expression[0]).join(_shown(each) if isinstance(each, tuple) else str(each) for each in expression[1:])


def _fields(expression: Expression) -> Iterator[str]:
    if expression[0] == "field":
        yield expression[1]
    if expression[:2] == ("call", "bin"):
        yield "@timestamp"
    for each in expression[1:]:
        if isinstance(each, tuple):
            yield from _fields(each)


def _is_total(expression: Expression) -> bool:
    if expression[0] == "call":
        return expression[1] in TOTALS
    return expression[0] == "value" or (
        expression[0] != "field" and all(_is_total(each) for each in expression[1:] if isinstance(each, tuple))
    )
