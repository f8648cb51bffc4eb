"""gunicorn's worker with threads, made to stand what a machine and its clients do to it. Runs in the worker."""

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

from app.linux.descriptors import lift_limit
from app.server.greeting import greet
from app.server.standin import StandIn
from app.server.threads import Threads
from app.web.heads import Heads
from app.web.lingering import UNWATCHABLE, Connection, Lingering
from app.web.problems import whole_answer
from app.web.unparsed import refusal_of

# Those that a new worker must not lose: the master blocks them across the fork.
HELD_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
# Threads beyond those of the settings, for operations that wait (app/web/places.py).
OPERATION_THREADS = 3
# Connections taken at one event, and how long none is taken where there is no descriptor for it.
ACCEPTED_AT_ONCE = 64
PAUSE = 0.1
# Descriptors that no connection gets: files, shims, and the worker's own.
RESERVED = 128
# What a worker opens before it can serve.
NEEDED = 16
SCARCE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
# What accept(2) says when nobody waits any more, and what it passes on of the network's: "treat them like EAGAIN".
GONE = frozenset({
    errno.EAGAIN, errno.EWOULDBLOCK, errno.ECONNABORTED, errno.ENETDOWN, errno.EPROTO, errno.ENOPROTOOPT,
    errno.EHOSTDOWN, errno.ENONET, errno.EHOSTUNREACH, errno.EOPNOTSUPP, errno.ENETUNREACH, errno.EPERM,
})  # fmt: skip


class ShellWorker(ThreadWorker):
    """Serve as gunicorn's threaded worker does, and end for nothing but an order to.

    Threads are made at its birth. A request gets one when its head is there. What keeps the application from being
    loaded is told in its place.
    """

    tpool: Threads  # type: ignore[assignment]  # what gunicorn asks of an executor
    _accept_again_at = 0.0
    _stand_in: StandIn | None = None

    def init_process(self) -> None:
        """Come up, and serve until told to end."""
        most = lift_limit()
        self.worker_connections = max(1, min(self.worker_connections, most - RESERVED))
        self._await_descriptors()
        try:
            super().init_process()
        finally:
            if self.tpool is not None:
                self.tpool.shutdown(wait=False)  # the interpreter's end waits for threads

    def get_thread_pool(self) -> Threads:  # type: ignore[override]  # as above
        """Return the threads that answer."""
        return Threads(self.cfg.threads + OPERATION_THREADS)

    def init_signals(self) -> None:
        """Take signals as a worker does, from now on, and those that came since the fork.

        The hang-up of a terminal reaches its whole process group, and is the master's to act on.
        """
        super().init_signals()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_SIGNALS)

    def handle_quit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002  gunicorn's signature
        """End at once at the master's quick stop (INT, QUIT): nothing is lost with it.

        gunicorn's own handler takes the thread pool's lock, which the very code that it interrupts may hold.
        """
        os._exit(0)

    def load_wsgi(self) -> None:
        """Load the application, or have answered why it can't be."""
        self._stand_in = StandIn(self.app.wsgi, self._serve_application)
        self.wsgi = self._stand_in  # type: ignore[assignment]  # the stubs write WSGI's types otherwise
        self._stand_in.try_to_load()

    def _serve_application(self, application: Any) -> None:
        self.wsgi = application
        self._stand_in = None
        greet([listener.getsockname() for listener in self.sockets], "https" if self.cfg.is_ssl else "http")

    def run(self) -> None:
        """Serve."""
        self._lingering = Lingering(self.poller)
        self._heads = Heads(self.poller, super().enqueue_req, self._part_with, self._forget)
        super().run()
        self._lingering.finish()

    def accept(self, listener: socket.socket) -> None:
        """Take the connections that wait, in favour of which those that have waited longest for a head are dropped."""
        for taken in range(ACCEPTED_AT_ONCE):
            try:
                client, address = listener.accept()
            except OSError as error:
                # accept(2) wants a descriptor before it looks whether anybody waits: only at first somebody does.
                if not taken:
                    self._note_refusal(error)
                return
            self.nr_conns += 1
            conn = Connection(self.cfg, client, address, listener.getsockname(), self._lingering)
            if self.cfg.is_ssl:  # its head can't be read before the handshake
                super().enqueue_req(conn)
            else:
                self._heads.add(conn)
            if self.nr_conns >= self.worker_connections and not self._make_room():
                return

    def set_accept_enabled(self, enabled: bool | None) -> None:
        """Take connections or not; not for a moment after there was no descriptor for one."""
        if enabled and time.monotonic() < self._accept_again_at:
            return
        try:
            super().set_accept_enabled(enabled)
        except OSError as error:
            if error.errno not in UNWATCHABLE:
                raise
            for listener in self.sockets:
                with suppress(KeyError):  # those before the one that could not be watched are
                    self.poller.unregister(listener)
            self._accept_again_at = time.monotonic() + PAUSE

    def enqueue_req(self, conn: Connection) -> None:  # type: ignore[override]  # it gets what `accept` made
        """Wait for the rest of a request, the beginning of which came with the end of the last one's body."""
        if self.cfg.is_ssl or conn.parser is None:
            super().enqueue_req(conn)
        else:
            conn.sock.setblocking(False)
            self._heads.add(conn, conn.parser.unreader.take_buffered())  # type: ignore[union-attr]  # HTTP/2 is off

    def on_client_socket_readable(  # type: ignore[override]  # as above
        self, conn: Connection, client: socket.socket
    ) -> None:
        """Wait for the rest of a further request on a connection."""
        if self.cfg.is_ssl:
            super().on_client_socket_readable(conn, client)
            return
        self.poller.unregister(client)
        self.keepalived_conns.remove(conn)
        self._heads.add(conn)

    def handle_request(self, req: Any, conn: Connection) -> bool:  # type: ignore[override]  # as above
        """Answer; where the body is not here as a whole, nobody knows where a next request begins."""
        if not self.cfg.is_ssl:
            req._expected_100_continue = False  # told when the body was waited for
            if not conn.whole:
                _refuse_other_codings(req.headers)
                req.force_close()
        return bool(super().handle_request(req, conn))

    def _keepalive_after(self, conn: Connection, keepalive: bool) -> bool:
        """Leave out what the application did not read of a body, all of which is here: gunicorn leaves out 64 KiB."""
        if keepalive and not self.cfg.is_ssl:
            conn.parser.mesg.body.read()  # type: ignore[union-attr]  # as above
        return bool(super()._keepalive_after(conn, keepalive))  # type: ignore[misc]  # not in the stubs yet

    def finish_request(self, conn: TConn, fs: Any) -> None:
        """Wait for the next request of a connection, or part with it."""
        self._heads.release(conn)
        super().finish_request(conn, fs)
        # gunicorn closes what can't be watched, but keeps it among those that it watches.
        if self.keepalived_conns and self.keepalived_conns[-1] is conn and conn.sock.fileno() < 0:
            self.keepalived_conns.pop()

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: BaseException) -> None:
        """Answer what gunicorn itself refuses as the application answers, and log it in one short line."""
        refusal = refusal_of(exc)
        if refusal is None:
            super().handle_error(req, client, addr, exc)
            return
        caller = addr[0] if isinstance(addr, tuple) else "a Unix socket"
        self.log.info("Refused what is no request, from %s: %s.", caller, type(exc).__name__)
        with suppress(OSError):
            client.sendall(whole_answer(*refusal))

    def murder_pending(self) -> None:
        """Do what is due; called at least once a second."""
        super().murder_pending()
        self._heads.expire()
        self._lingering.expire()
        self.tpool.fill()
        if (stand_in := self._stand_in) is not None:
            self.tpool.submit(stand_in.try_to_load)

    def _cap_keepalive(self, deadline: float) -> None:
        super()._cap_keepalive(deadline)  # type: ignore[misc]  # not in the stubs yet
        self._heads.hasten(deadline)

    def _part_with(self, conn: TConn) -> None:
        self.nr_conns -= 1
        conn.close(graceful=True)

    def _forget(self, conn: TConn) -> None:
        self.nr_conns -= 1
        conn.close()

    def _make_room(self) -> bool:
        """Drop whoever holds a descriptor and waits; False when all that there are have requests under way."""
        if self._lingering.drop_oldest() or self._heads.drop_oldest():
            return True
        if not self.keepalived_conns:
            return False
        self.keepalived_conns[0].timeout = 0.0
        self.murder_keepalived()
        return True

    def _note_refusal(self, error: OSError) -> None:
        """Go on after a connection could not be taken."""
        if error.errno in SCARCE:
            if not self._make_room():
                self._accept_again_at = time.monotonic() + PAUSE
                self.set_accept_enabled(False)
        elif error.errno not in GONE:
            raise error

    def _await_descriptors(self) -> None:
        """Wait until there are enough to come up with; meanwhile tell whoever calls, one at a time."""
        told = False
        while not _can_open(NEEDED):
            if not told:
                self.log.error("Too few descriptors to bring up a worker (RLIMIT_NOFILE): it waits for more.")
            told = True
            self.notify()
            for listener in self.sockets:
                _turn_away(listener)
            # Blocked since the fork, so that they are waited for instead of a time (sigtimedwait(2)).
            if signal.sigtimedwait(HELD_SIGNALS, 1.0) is not None or not self.is_parent_alive():
                sys.exit(0)


def _refuse_other_codings(headers: list[tuple[str, str]]) -> None:
    """Refuse a body that is compressed and chunked, which gunicorn hands on as if it were plain."""
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
