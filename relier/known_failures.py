"""What is known of failures: classes of the standard library and of Relier, those of libraries by name, and codes."""

from __future__ import annotations

import errno
import socket
import ssl
from enum import StrEnum

from relier import errors


class FailureKind(StrEnum):
    """Decides how often and how soon a failed task is retried."""

    TRANSIENT = "transient"
    DETERMINISTIC = "deterministic"
    UNCLASSIFIED = "unclassified"


_T, _D, _U = FailureKind.TRANSIENT, FailureKind.DETERMINISTIC, FailureKind.UNCLASSIFIED

#: A server that answers so asks for another try later.
RETRY_STATUSES = (429, 503)

BY_CLASS: dict[type[BaseException], FailureKind] = {
    TimeoutError: _T,
    ConnectionError: _T,
    socket.gaierror: _T,
    socket.herror: _T,
    ssl.SSLEOFError: _T,
    ssl.SSLZeroReturnError: _T,
    errors.AdmissionRejectedError: _T,
    errors.StoreUnavailableError: _T,
    errors.IdempotencyInFlightError: _T,
    TypeError: _D,
    AttributeError: _D,
    NameError: _D,
    ImportError: _D,
    NotImplementedError: _D,
    FileNotFoundError: _D,
    UnicodeError: _D,
    SyntaxError: _D,
    errors.PayloadIntegrityError: _D,
    errors.PayloadTooLargeError: _D,
    errors.SchemaMigrationError: _D,
    errors.CheckpointTooLargeError: _D,
    errors.HardTimeoutError: _D,
}

#: Classes of libraries that need not be installed, by the top-level module and the class's name.
BY_NAME: dict[tuple[str, str], FailureKind] = {
    (module, name): kind
    for kind, module, names in (
        (_T, "dramatiq", "BrokerConnectionError RateLimitExceeded Retry"),
        (_T, "redis", "ConnectionError TimeoutError BusyLoadingError ReadOnlyError TryAgainError"),
        (_T, "redis", "ClusterDownError MasterDownError MaxConnectionsError OutOfMemoryError SlotNotCoveredError"),
        (_T, "valkey", "ConnectionError TimeoutError BusyLoadingError ReadOnlyError TryAgainError"),
        (_T, "valkey", "ClusterDownError MasterDownError MaxConnectionsError OutOfMemoryError SlotNotCoveredError"),
        (_T, "requests", "ConnectionError Timeout ChunkedEncodingError RetryError"),
        (_T, "urllib3", "TimeoutError ProtocolError NewConnectionError MaxRetryError ProxyError"),
        (_T, "httpx", "TimeoutException NetworkError RemoteProtocolError ProxyError"),
        (_T, "httpcore", "TimeoutException NetworkError RemoteProtocolError ProxyError"),
        (_T, "aiohttp", "ClientConnectionError ClientPayloadError"),
        (_T, "http", "IncompleteRead BadStatusLine"),
        (_T, "asyncio", "IncompleteReadError"),
        (_T, "smtplib", "SMTPServerDisconnected SMTPConnectError"),
        (_T, "ftplib", "error_temp"),
        (_T, "websockets", "ConnectionClosed"),
        (_T, "paramiko", "NoValidConnectionsError"),
        (_T, "elastic_transport", "ConnectionError ConnectionTimeout"),
        (_T, "opensearchpy", "ConnectionError ConnectionTimeout"),
        (_T, "kafka", "KafkaConnectionError KafkaTimeoutError NoBrokersAvailable"),
        (_T, "google", "DeadlineExceeded RetryError"),
        (_T, "openai", "APIConnectionError"),
        (_T, "anthropic", "APIConnectionError"),
        (_T, "stripe", "APIConnectionError RateLimitError"),
        (_T, "botocore", "ConnectionError HTTPClientError"),
        (_T, "psycopg", "OperationalError"),
        (_T, "psycopg", "ConnectionTimeout"),
        (_T, "psycopg2", "OperationalError"),
        (_T, "psycopg_pool", "PoolTimeout TooManyRequests"),
        (_T, "asyncpg", "ConnectionDoesNotExistError ConnectionFailureError"),
        (_T, "sqlalchemy", "TimeoutError OperationalError DisconnectionError"),
        (_T, "django", "OperationalError"),
        (_T, "pymongo", "AutoReconnect ExecutionTimeout WaitQueueTimeoutError"),
        (_T, "pika", "AMQPConnectionError AMQPHeartbeatTimeout"),
        # Wrong credentials are a subclass of redis-py's connection error, but waiting does not cure them.
        (_U, "redis", "AuthenticationError AuthorizationError"),
        (_U, "valkey", "AuthenticationError AuthorizationError"),
        (_U, "requests", "SSLError"),
        (_D, "redis", "DataError"),
        (_D, "valkey", "DataError"),
        (_D, "dramatiq", "TimeLimitExceeded DecodeError"),
        (_D, "json", "JSONDecodeError"),
        (_D, "simplejson", "JSONDecodeError"),
        (_D, "ujson", "JSONDecodeError"),
        (_D, "tomllib", "TOMLDecodeError"),
        (_D, "xml", "ParseError"),
        (_D, "configparser", "Error"),
        (_D, "_csv", "Error"),
        (_D, "struct", "error"),
        (_D, "msgpack", "UnpackException FormatError ExtraData"),
        (_D, "google", "DecodeError"),
        (_D, "yaml", "YAMLError"),
        (_D, "binascii", "Error"),
        (_D, "pickle", "UnpicklingError"),
        (_D, "_pickle", "UnpicklingError"),
        (_D, "msgspec", "DecodeError ValidationError"),
        (_D, "pydantic", "ValidationError"),
        (_D, "pydantic_core", "ValidationError"),
        (_D, "pydantic_settings", "SettingsError"),
        (_D, "jsonschema", "ValidationError"),
        (_D, "fastjsonschema", "JsonSchemaException"),
        (_D, "marshmallow", "ValidationError"),
        (_D, "rest_framework", "ValidationError"),
        (_D, "voluptuous", "Invalid"),
        (_D, "django", "ValidationError ImproperlyConfigured"),
        (_D, "environs", "EnvError"),
        (_D, "decouple", "UndefinedValueError"),
    )
    for name in names.split()
}

#: Network errors that Python gives no class of their own.
NETWORK_ERRNOS = frozenset(
    {errno.ENETDOWN, errno.ENETUNREACH, errno.ENETRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL}
)
#: Codes of AWS that mean a rate limit; most of them come with HTTP status 400.
THROTTLES = frozenset(
    {"Throttling", "ThrottlingException", "ThrottledException", "RequestThrottled", "RequestThrottledException"}
    | {"TooManyRequestsException", "RequestLimitExceeded", "BandwidthLimitExceeded", "SlowDown"}
    | {"ProvisionedThroughputExceededException", "PriorRequestNotComplete", "TransactionInProgressException"}
)
#: Codes of gRPC: the server is away, is asked too often, or takes too long.
GRPC_CODES = frozenset({"UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"})
#: SQLSTATE classes: connection, transaction rollback (deadlock, serialization), resources, shutdown.
TRANSIENT_SQLSTATES = ("08", "40", "53", "55P03", "57P01", "57P02", "57P03", "57P05")
#: SQLITE_BUSY and SQLITE_LOCKED.
TRANSIENT_SQLITE_CODES = (5, 6)
#: MySQL: too many connections, lock wait timeout, deadlock, cannot connect, gone away, lost connection.
TRANSIENT_MYSQL_CODES = (1040, 1205, 1213, 2002, 2003, 2006, 2013, 2055)
MYSQL_MODULES = ("pymysql", "MySQLdb", "aiomysql", "asyncmy", "mysql")
#: Exceptions that only carry another one.
WRAPPERS = {
    ("urllib", "URLError"): "reason",
    ("urllib3", "MaxRetryError"): "reason",
    ("sqlalchemy", "StatementError"): "orig",
    ("tenacity", "RetryError"): "__cause__",
}
