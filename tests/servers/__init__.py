"""Servers that tests may use and hurt: local processes, containers, given ones."""

from tests.servers.rabbitmq_servers import RabbitmqServer
from tests.servers.redis_servers import RedisServer
from tests.servers.service import Server

__all__ = ["RabbitmqServer", "RedisServer", "Server"]
