"""Runs in the worker: gunicorn's threaded worker, made to survive slow clients and a lack of threads or descriptors."""

import errno
import os
import signal
import socket
import sys
import time
from contextlib import ExitStack, suppress
from http import HTTPStatus
from types import FrameType
from typing import Any

from gunicorn.http.errors import UnsupportedTransferCoding
from gunicorn.workers.gthread import TConn, ThreadWorker

from app.config import Settings
from app.linux.descriptors import lift_limit
from app.server.announcement import announce
from app.server.standin import StandIn
from app.server.threads import Threads
from app.service import supervisor
from app.supervisor import zygote
from app.supervisor.orphans import reap_orphans
from app.web.heads import Heads
from app.web.kinds import OF_A_PROCESS, OF_ALL
from app.web.lingering import UNWATCHABLE, Connection, Lingering
from app.web.problems import whole_answer
from app.web.unparsed import refusal_of

# Signals that a new worker must not lose: the master blocks them across the fork.
HELD_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
# Connections accepted at one event, and seconds without accept(2) where there is no descriptor for one.
ACCEPTED_AT_ONCE = 64
PAUSE = 0.1
# Seconds between looks at the children for some that have ended.
LOOK_INTERVAL = 0.5
# Descriptors kept from connections: for files, shims, and the worker's own.
RESERVED = 128
# Descriptors that a worker opens before it can serve.
NEEDED = 16
SCARCE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
# accept(2) without a connection, and the network's pending errors that it passes on: "treat them like EAGAIN".
GONE = frozenset({
    errno.EAGAIN, errno.EWOULDBLOCK, errno.ECONNABORTED, errno.ENETDOWN, errno.EPROTO, errno.ENOPROTOOPT,
    errno.EHOSTDOWN, errno.ENONET, errno.EHOSTUNREACH, errno.EOPNOTSUPP, errno.ENETUNREACH, errno.EPERM,
})  # fmt: skip


class ShellWorker(ThreadWorker):
    """Serve as gunicorn's threaded worker does, and exit only at a signal.

    Threads are created at its start, and further ones only while all are busy. A request gets one when all of it has
    been received. While the application can't be loaded, `StandIn` answers.
    """

    tpool: Threads  # type: ignore[assignment]  # it has the methods that gunicorn calls
    _accept_again_at = 0.0
    _look_again_at = 0.0
    _stand_in: StandIn | None = None

    def init_process(self) -> None:
        """Start, and serve until a signal ends it."""
        most = lift_limit()
        self.worker_connections = max(1, min(self.worker_connections, most - RESERVED))
        self._await_descriptors()
        try:
            super().init_process()
        finally:
            if self.tpool is not None:
                self.tpool.shutdown(wait=False)  # the interpreter joins threads at its exit

    def get_thread_pool(self) -> Threads:  # type: ignore[override]  # as above
        """Return the threads that answer requests: those of the settings, and as many as operations may hold.

        Of these the ones for one process are there from the start.
        """
        settings = supervisor.settings or Settings()
        threads = self.cfg.threads
        return Threads(threads + OF_A_PROCESS, threads + OF_A_PROCESS * settings.max_processes + OF_ALL)

    def init_signals(self) -> None:
        """Handle signals as gunicorn's worker does, those blocked since the fork included.

        A terminal's hang-up reaches the whole process group, and only the master acts on it.
        """
        super().init_signals()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_SIGNALS)

    def handle_quit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002  gunicorn's signature
        """Exit at once at the master's quick stop (INT, QUIT): nothing is lost with it.

        gunicorn's own handler takes the thread pool's lock, which the code that it interrupts may hold: a deadlock.
        """
        os._exit(0)

    def load_wsgi(self) -> None:
        """Load the application, or have `StandIn` answer why it can't be."""
        self._stand_in = StandIn(self.app.wsgi, self._serve_application)
        self.wsgi = self._stand_in  # type: ignore[assignment]  # the stubs have other types for WSGI
        self._stand_in.try_to_load()

    def _serve_application(self, application: Any) -> None:
        self.wsgi = application
        self._stand_in = None
        announce([listener.getsockname() for listener in self.sockets], "https" if self.cfg.is_ssl else "http")

    def run(self) -> None:
        """Serve until the shutdown, and finish closing connections."""
        self._lingering = Lingering(self.poller)
        self._heads = Heads(self.poller, super().enqueue_req, self._close_gracefully, self._close)
        super().run()
        self._lingering.finish()

    def accept(self, listener: socket.socket) -> None:
        """Accept waiting connections; at the limit, drop those that have waited longest for a request instead."""
        for taken in range(ACCEPTED_AT_ONCE):
            try:
                client, address = listener.accept()
            except OSError as error:
                # accept(2) allocates a descriptor before it looks for a connection: one waits for sure only at first.
                if not taken:
                    self._note_refusal(error)
                return
            self.nr_conns += 1
            conn = Connection(self.cfg, client, address, listener.getsockname(), self._lingering)
            if self.cfg.is_ssl:  # its head can't be read before the TLS handshake
                super().enqueue_req(conn)
            else:
                self._heads.add(conn)
            if self.nr_conns >= self.worker_connections and not self._make_room():
                return

    def set_accept_enabled(self, enabled: bool | None) -> None:
        """Watch the listeners or not; pause after there was no descriptor for a connection."""
        if enabled and time.monotonic() < self._accept_again_at:
            return
        try:
            super().set_accept_enabled(enabled)
        except OSError as error:
            if error.errno not in UNWATCHABLE:
                raise
            for listener in self.sockets:
                with suppress(KeyError):  # only those before the failure are registered
                    self.poller.unregister(listener)
            self._accept_again_at = time.monotonic() + PAUSE

    def enqueue_req(self, conn: Connection) -> None:  # type: ignore[override]  # it gets the objects that `accept` made
        """Wait for the rest of a request whose beginning was received with the body of the last one."""
        if self.cfg.is_ssl or conn.parser is None:
            super().enqueue_req(conn)
        else:
            conn.sock.setblocking(False)
            self._heads.add(conn, conn.parser.unreader.take_buffered())  # type: ignore[union-attr]  # HTTP/2 is off

    def on_client_socket_readable(  # type: ignore[override]  # as above
        self, conn: Connection, client: socket.socket
    ) -> None:
        """Wait for the rest of a further request on a kept-alive connection."""
        if self.cfg.is_ssl:
            super().on_client_socket_readable(conn, client)
            return
        self.poller.unregister(client)
        self.keepalived_conns.remove(conn)
        self._heads.add(conn)

    def handle_request(self, req: Any, conn: Connection) -> bool:  # type: ignore[override]  # as above
        """Answer; close after it where the body is incomplete, since the start of a next request is unknown then."""
        if not self.cfg.is_ssl:
            req._expected_100_continue = False  # sent by `Heads` already
            if not conn.whole:
                _refuse_other_codings(req.headers)
                req.force_close()
        return bool(super().handle_request(req, conn))

    def _keepalive_after(self, conn: Connection, keepalive: bool) -> bool:
        """Skip the rest of a body, all of it in memory, that the application did not read: gunicorn skips 64 KiB."""
        if keepalive and not self.cfg.is_ssl:
            conn.parser.mesg.body.read()  # type: ignore[union-attr]  # as above
        return bool(super()._keepalive_after(conn, keepalive))  # type: ignore[misc]  # not in the stubs yet

    def finish_request(self, conn: TConn, fs: Any) -> None:
        """Wait for the next request of a connection, or close it."""
        self._heads.release(conn)
        super().finish_request(conn, fs)
        # gunicorn closes a connection that can't be watched, but keeps it in its list.
        if self.keepalived_conns and self.keepalived_conns[-1] is conn and conn.sock.fileno() < 0:
            self.keepalived_conns.pop()

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: BaseException) -> None:
        """Answer a request that gunicorn itself refuses in the application's error format, and log one short line."""
        refusal = refusal_of(exc)
        if refusal is None:
            super().handle_error(req, client, addr, exc)
            return
        caller = addr[0] if isinstance(addr, tuple) else "a Unix socket"
        self.log.info("Refused a malformed request from %s: %s.", caller, type(exc).__name__)
        with suppress(OSError):
            client.sendall(whole_answer(*refusal))

    def murder_pending(self) -> None:
        """Do what is due; called at least once a second.

        Expire connections, create missing threads, retry the load, reap orphans, replace a zygote that has died.
        """
        super().murder_pending()
        if (now := time.monotonic()) >= self._look_again_at:  # not at every request: a look takes some dozen calls
            self._look_again_at = now + LOOK_INTERVAL
            reap_orphans()
            zygote.own.renew()
        self._heads.expire()
        self._lingering.expire()
        self.tpool.fill()
        if (stand_in := self._stand_in) is not None:
            self.tpool.submit(stand_in.try_to_load)

    def _cap_keepalive(self, deadline: float) -> None:
        super()._cap_keepalive(deadline)  # type: ignore[misc]  # not in the stubs yet
        self._heads.hasten(deadline)

    def _close_gracefully(self, conn: TConn) -> None:
        self.nr_conns -= 1
        conn.close(graceful=True)

    def _close(self, conn: TConn) -> None:
        self.nr_conns -= 1
        conn.close()

    def _make_room(self) -> bool:
        """Close a connection that only waits; False when all of them have requests under way."""
        if self._lingering.drop_oldest() or self._heads.drop_oldest():
            return True
        if not self.keepalived_conns:
            return False
        self.keepalived_conns[0].timeout = 0.0
        self.murder_keepalived()
        return True

    def _note_refusal(self, error: OSError) -> None:
        """Go on after a failed accept(2), unless it is a fault of the listener."""
        if error.errno in SCARCE:
            if not self._make_room():
                self._accept_again_at = time.monotonic() + PAUSE
                self.set_accept_enabled(False)
        elif error.errno not in GONE:
            raise error

    def _await_descriptors(self) -> None:
        """Wait until there are enough to start with; meanwhile answer callers with a 500, one a second."""
        logged = False
        while not _can_open(NEEDED):
            if not logged:
                self.log.error("Too few descriptors to bring up a worker (RLIMIT_NOFILE): it waits for more.")
            logged = True
            self.notify()
            for listener in self.sockets:
                _turn_away(listener)
            # They are blocked since the fork, so sigtimedwait(2) serves as a sleep that they end.
            if signal.sigtimedwait(HELD_SIGNALS, 1.0) is not None or not self.is_parent_alive():
                sys.exit(0)


def _refuse_other_codings(headers: list[tuple[str, str]]) -> None:
    """Refuse a body that is compressed and chunked, which gunicorn would pass on still compressed."""
    for name, value in headers:
        if name == "TRANSFER-ENCODING" and value.lower() != "chunked":
            raise UnsupportedTransferCoding(value)


def _can_open(count: int) -> bool:
    with ExitStack() as opened:
        try:
            for _ in range(count):
                opened.callback(os.close, os.dup(0))
        except OSError:
            return False
    return True


def _turn_away(listener: socket.socket) -> None:
    with suppress(OSError):
        listener.setblocking(False)
        client, _address = listener.accept()
        with client:
            detail = "The service can't be brought up: it may open too few files. It tries again by itself."
            client.sendall(whole_answer(HTTPStatus.INTERNAL_SERVER_ERROR, detail))
