"""Real servers for development and tests, from wheels: no container, no root, no fixed ports.

    async with NatsServer() as nats, PostgresServer() as postgres, SmtpSink() as mail:
        ...

They need the extra ``glam-shared[dev]``; importing this package does not.
"""

from shared.dev.nats_server import NatsServer
from shared.dev.postgres_server import PostgresServer
from shared.dev.process import Process, ProcessError
from shared.dev.server import Server
from shared.dev.service_process import ServiceProcess
from shared.dev.smtp_sink import Mail, SmtpSink
from shared.dev.tcp_proxy import Lane, ProxiedConnection, TcpProxy

__all__ = [
    "Lane",
    "Mail",
    "NatsServer",
    "PostgresServer",
    "Process",
    "ProcessError",
    "ProxiedConnection",
    "Server",
    "ServiceProcess",
    "SmtpSink",
    "TcpProxy",
]
