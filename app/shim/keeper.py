"""Runs in the shim: the event loop of a run, which records and reports each change of its state."""

import contextlib
import os
import select
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

from msgspec.structs import replace

from app.linux.proc import Identity, Member
from app.log.clock import format_time
from app.protocol.messages import VERSION, Handshake, Kill, Killed, Reply, Request, Unsupported
from app.runs.record import OVERTAKING, Intent, RecordFile, RunRecord, State, record_path
from app.shim.adopted import AdoptedTree
from app.shim.listener import Listener
from app.shim.log_writer import LogWriter
from app.shim.owned import OwnedTree
from app.shim.stdio import OutputPipe
from app.shim.stopping import StopSequence

# How often counts of incidents are reported while they grow.
INCIDENT_INTERVAL = 1.0
UNKNOWN_CODE = "Its shim was killed, and its exit code can't be read any more."


class Keeper:
    """Own one run's pipe, log, record and tree. Single-threaded."""

    def __init__(
        self,
        record: RunRecord,
        process: Identity,
        tree: OwnedTree | AdoptedTree,
        pipe: int | None,
        listener: socket.socket,
    ) -> None:
        self._record = record
        self._process = process
        self._tree = tree
        self._state = record.state
        self._changed = True
        self._file = RecordFile(record_path(record.log_file), record.log_mode)
        self._writer = LogWriter(record.log_file, record.clock, mode=record.log_mode, max_bytes=record.log_max_bytes)
        self._output = OutputPipe(pipe, self._writer)
        self._stop: StopSequence | None = None
        self._waiters: list[tuple[socket.socket, int, Kill]] = []
        self._incidents_reported_at = 0.0
        # A replacement shim adds to the dead one's counts.
        self._counted_before = {
            kind: record.state.incidents.get(kind, 0) for kind in ("dropped_lines", "failed_writes")
        }
        self._listener = Listener(listener, self._serve, self._handshake)
        self._operations: dict[type, Callable[[socket.socket, int, Any], None]] = {
            Kill: self._kill,
            Unsupported: self._reply_unsupported,
        }
        self._poller = select.poll()
        self._handlers: dict[int, Callable[[], object]] = {
            self._listener.fd: self._listener.serve,
            tree.fd: self._reap,
        }
        self._pipe = pipe
        if pipe is not None:
            self._handlers[pipe] = self._output.move
        for fd in self._handlers:
            self._poller.register(fd, select.POLLIN)

    def add_connection(self, connection: socket.socket) -> None:
        """Serve the supervisor at the other end of this connection."""
        self._listener.add(connection)

    def _handshake(self) -> tuple[Handshake, int | None]:
        """Write the record anew; return the first message of a connection, and the pipe that goes with it."""
        self._record_members()
        self._write_record()
        return Handshake(VERSION, self._state), self._output.fd

    def resume(self) -> None:
        """Continue the run of a dead shim: count the losses, and finish a stop that was begun."""
        self._count("takeovers")
        if self._state.output_open and not self._output.open:
            self._count("output_lost")
            self._writer.finish()
            self._notice_end_of_output()  # a handshake must report both facts
        intent = self._record.intent
        if intent is not None:
            left = (intent.kill_at_ns - time.clock_gettime_ns(time.CLOCK_BOOTTIME)) / 1e9
            self._stop = self._new_stop()
            if intent.signal == "SIGKILL":
                self._stop.kill()
            else:
                self._stop.resume(intent.signalled, self._record.members, time.monotonic() + left)

    def run(self) -> None:
        """Serve events until the run has ended."""
        for _state in self.states():
            pass
        self.close()

    def states(self) -> Iterator[State]:
        """Serve events, and yield the state after each, until the run has ended."""
        self._reap()
        self._after_events()
        yield self._state
        while not self._state.ended:
            for fd, _events in self._poller.poll(self._poll_timeout()):
                # The handler of an earlier event of this poll may have removed this one.
                self._handlers.get(fd, bool)()
            self._after_events()
            yield self._state

    def close(self) -> None:
        """Close connections, pipe and log, whether the run has ended or not."""
        if self._state.ended:
            with contextlib.suppress(OSError):  # the record itself has been written
                self._file.fill_spare(self._record)
        self._listener.close()
        self._output.close()
        self._writer.close()

    def _after_events(self) -> None:
        """Write and signal what is due, end the run if its tree is gone, then record and report the changes."""
        now = time.monotonic()
        self._writer.flush_due(now)
        replies = self._advance_stop(now)
        self._report_incidents(now)
        self._conclude()
        self._publish()
        # After the state: a supervisor that gets the reply to a kill knows the outcome already.
        for connection, reply in replies:
            self._listener.send(connection, reply)

    def _poll_timeout(self) -> float | None:
        """Return how many milliseconds the next poll may wait; None means until the next event."""
        instants = (
            self._writer.deadline,
            self._stop.wake_at if self._stop else None,
            self._incidents_reported_at + INCIDENT_INTERVAL if self._unreported_incidents() else None,
        )
        due = [instant for instant in instants if instant is not None]
        if not due:
            return None
        # Rounded up: a poll that returns a fraction too early would spin until the deadline has really come.
        return max(0.0, (min(due) - time.monotonic()) * 1000 + 1)

    def _reap(self) -> None:
        if self._stop is not None:
            self._stop.note_end()
        for pid, code in self._tree.ended():
            if pid != self._process.pid or self._state.stopped_at is not None:
                continue
            stopped_at = format_time(self._record.clock.now_ns())
            # The last line must be in the log before the exit is reported.
            self._output.drain()
            self._output.show_unfinished()
            self._record_members()
            self._change(stopped_at=stopped_at, exit_code=code, unknown=UNKNOWN_CODE if code is None else None)

    def _conclude(self) -> None:
        """End the run when its tree is gone: no process writes any more, so the pipe holds the last output."""
        if self._tree.gone and not self._state.ended:
            self._output.drain()
            self._output.close()
            self._change(ended=True)

    def _serve(self, connection: socket.socket, request: Request) -> None:
        self._operations[type(request.op)](connection, request.id, request.op)

    def _reply_unsupported(self, connection: socket.socket, number: int, operation: Unsupported) -> None:
        self._listener.send(connection, Reply(number, operation))

    def _kill(self, connection: socket.socket, number: int, kill: Kill) -> None:
        self._reap()
        if self._tree.gone:
            self._after_events()
            self._listener.send(connection, Reply(number, Killed(found=False)))
            return
        self._waiters.append((connection, number, kill))
        if kill.cause in OVERTAKING:
            self._change(cancellations=self._state.cancellations + 1)
        deadline = time.monotonic() + kill.timeout
        if self._stop is None:
            self._begin_stop(kill, deadline)
        else:
            self._join_stop(self._stop, kill, deadline)

    def _begin_stop(self, kill: Kill, deadline: float) -> None:
        left = deadline - time.monotonic()
        kill_at_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + int(left * 1e9)
        self._record.intent = Intent(kill.signal, kill_at_ns, kill.cause)
        self._attribute_end(kill)
        self._stop = self._new_stop()
        if kill.signal == "SIGTERM":
            self._stop.terminate(deadline)
            return
        self._record_members()
        # On disk before the first signal, as below.
        self._publish()
        self._stop.kill()

    def _new_stop(self) -> StopSequence:
        output = os.fstat(self._pipe).st_ino if self._output.open and self._pipe is not None else None
        return StopSequence(self._tree, self._process, output=output, note=self._note_signalled)

    def _note_signalled(self, members: list[Member], signalled: list[Identity]) -> None:
        """Record which members get SIGTERM before it is sent: a replacement shim then signals none twice."""
        self._record.members = [member.identity for member in members]
        if self._record.intent is not None:
            self._record.intent = replace(self._record.intent, signalled=signalled)
        self._changed = True
        self._publish()

    def _join_stop(self, stop: StopSequence, kill: Kill, deadline: float) -> None:
        if kill.cause in OVERTAKING:
            self._attribute_end(kill)
        if kill.signal == "SIGKILL":
            stop.escalate()
        else:
            stop.hasten(deadline)

    def _attribute_end(self, kill: Kill) -> None:
        """Record the cause of the end, unless the process ended before any signal of ours."""
        if self._state.stopped_at is None:
            self._change(killed_by=kill.cause)
        self._changed = True

    def _advance_stop(self, now: float) -> list[tuple[socket.socket, Reply]]:
        """Advance a stop that is under way; return the replies to be sent when it is over."""
        stop = self._stop
        if stop is None or not (self._tree.gone or stop.advance(now)):
            return []
        if not self._tree.gone:
            self._reap()  # a member that the last look did not find any more may not have been reaped yet
        survivors = [] if self._tree.gone else self._survivors()
        refused = sorted({identity.pid for identity in stop.refused}.intersection(survivors))
        killed = Killed(found=True, escalated=stop.escalated, survivors=survivors, refused=refused)
        overtaken = any(kill.cause in OVERTAKING for _connection, _number, kill in self._waiters)
        replies = [
            (connection, Reply(number, replace(killed, overtaken=overtaken and kill.cause not in OVERTAKING)))
            for connection, number, kill in self._waiters
        ]
        self._waiters.clear()
        self._stop = None
        self._record.intent = None
        self._change(escalated=stop.escalated)
        if self._process.pid in refused and self._state.stopped_at is None:
            self._change(killed_by=None)  # no signal of ours has reached it
        return replies

    def _survivors(self) -> list[int]:
        """Return the members that outlived a stop; count an incident where `/proc` hides them (hidepid, proc(5))."""
        survivors = sorted(member.pid for member in self._tree.members())
        if not survivors:
            self._reap()  # a member that ended just now is no survivor
            if not self._tree.gone:
                self._count("unseen_survivors")
        return survivors

    def _report_incidents(self, now: float) -> None:
        """Report the writer's counts, at intervals: during a fault they grow with every line."""
        unreported = self._unreported_incidents()
        if unreported and (now - self._incidents_reported_at >= INCIDENT_INTERVAL or self._tree.gone):
            self._incidents_reported_at = now
            self._change(incidents=self._state.incidents | unreported)

    def _unreported_incidents(self) -> dict[str, int]:
        counts = {kind: before + getattr(self._writer, kind) for kind, before in self._counted_before.items()}
        return {kind: count for kind, count in counts.items() if count > self._state.incidents.get(kind, 0)}

    def _count(self, kind: str) -> None:
        self._change(incidents=self._state.incidents | {kind: self._state.incidents.get(kind, 0) + 1})

    def _change(self, **fields: object) -> None:
        self._state = replace(self._state, **fields)
        self._changed = True

    def _publish(self) -> None:
        """Write the record and send the state to every supervisor, if anything changed."""
        self._notice_end_of_output()
        if not self._changed:
            return
        self._write_record()
        self._changed = False
        self._listener.broadcast(self._state)

    def _record_members(self) -> None:
        """Record the tree: a service that is not an ancestor of this shim needs that when the shim is killed."""
        self._record.members = [member.identity for member in self._tree.members()]

    def _write_record(self) -> None:
        self._record.state = self._state
        try:
            self._file.write(self._record)
        except OSError:  # the run goes on, and the next change tries again
            self._count("failed_records")

    def _notice_end_of_output(self) -> None:
        if self._output.open or not self._state.output_open:
            return
        self._change(output_open=False)
        if self._pipe is not None:
            self._poller.unregister(self._pipe)
            del self._handlers[self._pipe]
