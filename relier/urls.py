"""Check connection URLs before anything connects, and print them without their secrets."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from redis import ConnectionPool
from redis.exceptions import RedisError

REDIS_SCHEMES = ("redis", "rediss", "unix")
RABBITMQ_SCHEMES = ("amqp", "amqps")

#: Bytes of a unix socket's path that every supported system accepts (macOS: 104 with the closing zero).
MAX_SOCKET_PATH = 103

_SECRET_QUERY = re.compile(r"([?&;][^=&#]*(?:pass|secret|token)[^=&#]*=)[^&#]*", re.IGNORECASE)
_BETWEEN_URLS = re.compile(r";(?=\w+://)")
_PLAIN = re.compile(r"[\w.+\-]*\Z")


def safe_url(url: object) -> str:
    """Return the URL with passwords masked, on one line. Never raises, whatever it is given.

    When in doubt it masks too much: a password with an unescaped `/` or `@` must not show.
    """
    text = "".join(char if char.isprintable() else "?" for char in str(url))
    return ";".join(_mask(part) for part in _BETWEEN_URLS.split(text))


def _mask(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    if not (separator and _PLAIN.match(scheme)):
        scheme, separator, rest = "", "", url
    userinfo, at, place = rest.rpartition("@")
    if at:
        user, colon, _ = userinfo.partition(":")
        visible = f"{user}:" if separator and colon and _PLAIN.match(user) else ""
        place = f"{visible}***@{place}"
    return _SECRET_QUERY.sub(r"\1***", f"{scheme}{separator}{place}")


def url_problem(url: str, schemes: tuple[str, ...]) -> str | None:
    """Return what is wrong with a connection URL, without quoting any part of it that may be secret."""
    scheme, separator, _ = url.partition("://")
    if not separator or scheme not in schemes:
        return f"a URL begins with {_alternatives(schemes)}"
    if scheme in RABBITMQ_SCHEMES:
        problems = (_place_problem(part) for part in _BETWEEN_URLS.split(url))
        return next((problem for problem in problems if problem), None)
    return _socket_problem(url) if scheme == "unix" else _server_problem(url)


def _alternatives(schemes: tuple[str, ...]) -> str:
    names = [f"{scheme}://" for scheme in schemes]
    return " or ".join([", ".join(names[:-1]), names[-1]])


def _place_problem(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "the host or port is malformed (a port is a number up to 65535; escape / # ? @ in passwords)"
    if port == 0:
        return "the port is a number from 1 to 65535"
    if any(char.isspace() for char in parts.netloc):
        return "the host contains a space"
    return None


def servers_of(url: str) -> list[str]:
    """Return a URL for each server of one that names several, as `redis://a:6379,b:6379` does for a Redis Cluster."""
    scheme, _, rest = url.partition("://")
    if scheme == "unix":
        return [url]
    place, slash, tail = rest.partition("/")
    place, question, query = place.partition("?")
    userinfo, at, hosts = place.rpartition("@")
    return [f"{scheme}://{userinfo}{at}{host}{question}{query}{slash}{tail}" for host in hosts.split(",")]


def _server_problem(url: str) -> str | None:
    problems = (_one_server_problem(part) for part in servers_of(url))
    return next((problem for problem in problems if problem), None)


def _one_server_problem(url: str) -> str | None:
    problem = _place_problem(url)
    if problem:
        return problem
    database = urlsplit(url).path.strip("/")
    if database and not (database.isascii() and database.isdigit()):
        return "what follows the host is the number of the database, as in redis://host:6379/0"
    return _options_problem(url)


def _socket_problem(url: str) -> str | None:
    try:
        path = urlsplit(url).path
    except ValueError:
        return "the socket path is malformed"
    if not path.startswith("/") or path == "/":
        return "a unix URL gives the socket's absolute path, as in unix:///run/redis.sock"
    size = len(path.encode())
    if size > MAX_SOCKET_PATH:
        return f"the socket path is {size} bytes long, the limit is {MAX_SOCKET_PATH}: use a shorter one"
    return _options_problem(url)


def _options_problem(url: str) -> str | None:
    try:
        ConnectionPool.from_url(url).make_connection()
    except (TypeError, ValueError, RedisError):
        return "an option behind the ? is unknown to redis-py or has a bad value"
    return None
