"""Runs in the shim: the event loop of a run, which records and reports each change of its state."""

import contextlib
import select
import socket
import time
import traceback
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from app.linux.proc import Identity, Member, is_child
from app.log.clock import format_time
from app.protocol import VERSION, Crashed, Handshake, Kill, Killed, Reply, Request, Unsupported
from app.runs.record import OVERTAKING, Intent, RecordFile, RunRecord, record_path
from app.shim.listener import Listener
from app.shim.log_writer import LogWriter
from app.shim.owned import OwnedTree
from app.shim.record_copy import RecordCopy
from app.shim.stdio import OutputPipe
from app.shim.write_end import WriteEnd
from app.stopping.daemons import Exempt
from app.stopping.sequence import StopSequence

# Seconds after the end of its grace from which on a stop sends no SIGTERM any more: the SIGCONT that goes with it would
# continue members that were stopped, as a command is that keeps stopping its shim.
STALE = 0.1
# How often counts of incidents are reported while they grow.
INCIDENT_INTERVAL = 1.0
UNKNOWN_CODE = "Its shim was killed, and its exit code can't be read any more."


class Keeper:
    """Own one run's pipe, log, record and tree. Single-threaded."""

    def __init__(
        self,
        record: RunRecord,
        process: Identity,
        copy: RecordCopy,
        pipe: int,
        listener: socket.socket,
    ) -> None:
        self._record = record
        self._process = process
        self._tree = OwnedTree()
        self._copy = copy
        self._state = record.state
        self._changed = False
        self._file = RecordFile(record_path(record.log_file), record.log_mode)
        self._writer = LogWriter(record.log_file, record.clock, mode=record.log_mode, max_bytes=record.log_max_bytes)
        self._output = OutputPipe(pipe, self._writer, WriteEnd(pipe, process, self._tree.members))
        self._stop: StopSequence | None = None
        # Whether the process had ended before the stop began.
        self._ended_before = False
        self._waiters: list[tuple[socket.socket, int, Kill]] = []
        self._incidents_reported_at = 0.0
        # An understudy that takes over adds to the counts of the killed shim.
        self._counters = {"dropped_lines": self._writer, "failed_writes": self._writer, "nonblocking": self._output}
        self._counted_before = {kind: record.state.incidents.get(kind, 0) for kind in self._counters}
        self._listener = Listener(listener, self._serve, self._handshake)
        self._operations: dict[type, Callable[[socket.socket, int, Any], None]] = {
            Kill: self._kill,
            Unsupported: self._reply_unsupported,
        }
        self._poller = select.poll()
        self._handlers: dict[int, Callable[[], object]] = {
            self._listener.fd: self._listener.serve,
            self._tree.fd: self._reap,
        }
        self._pipe: int | None = pipe
        self._handlers[pipe] = self._output.move
        for fd in self._handlers:
            self._poller.register(fd, select.POLLIN)

    def begin(self, connection: socket.socket) -> None:
        """Record the process, and serve the run's first connection."""
        self._write_record()
        self._listener.add(connection, Handshake(VERSION, self._state))

    def _handshake(self) -> Handshake:
        """Write the record anew, and return the first message of a connection."""
        self._record_members()
        self._write_record()
        return Handshake(VERSION, self._state)

    def resume(self) -> None:
        """Continue the run of a killed shim: its log, with the takeover counted, and a stop that was begun."""
        self._writer.resume()
        self._count("takeovers")
        intent = self._record.intent
        if intent is not None:
            left = _seconds_until(intent.kill_at_ns)
            self._stop = self._new_stop(self._exempt_again(intent))
            if intent.signal == "SIGKILL":
                self._stop.kill()
            elif left < -STALE:
                self._stop.escalate()
            else:
                self._stop.resume(intent.signalled, self._record.members, time.monotonic() + left)
        self._reap()
        if self._state.stopped_at is None and not is_child(self._process):
            self._change(stopped_at=format_time(self._record.clock.now_ns()), unknown=UNKNOWN_CODE)

    def run(self) -> None:
        """Serve events until the run has ended; report a fault of this code to the supervisors, and raise it."""
        try:
            self._serve_events()
        except Exception:  # whatever it is, it is reported and raised again: the understudy takes over then
            self._listener.broadcast(Crashed(traceback.format_exc()))
            raise
        self._close()

    def _serve_events(self) -> None:
        self._reap()
        self._after_events()
        timeout = self._poll_timeout()
        while not self._state.ended:
            self._output.expect()
            events = self._poller.poll(timeout)
            self._output.attend()
            for fd, _events in events:
                # The handler of an earlier event of this poll may have removed this one.
                self._handlers.get(fd, bool)()
            if self._is_output_alone(events):
                timeout = self._poll_timeout() if self._writer.deadline else None
                continue
            self._after_events()
            timeout = self._poll_timeout()

    def _is_output_alone(self, events: list[tuple[int, int]]) -> bool:
        """Tell whether nothing is due after these events, as after most: some output came, and was written or may wait.

        A slow command makes one such event a line, and what is called in each is no longer in the processor's caches.
        """
        if len(events) != 1 or events[0][0] != self._pipe or self._output.fd is None:
            return False
        if self._stop is not None or self._changed or self._faulty:
            return False
        return self._writer.deadline is None or time.monotonic() < self._writer.deadline

    def _close(self) -> None:
        """Close connections, pipe and log when the run has ended."""
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
            self._change(stopped_at=stopped_at, exit_code=code)
            # On disk before it is reaped: should this process be killed, its understudy has one or the other.
            self._publish()

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
        stale = bool(kill.until_ns) and _seconds_until(kill.until_ns) < -STALE
        self._record.intent = Intent(kill.signal, kill_at_ns, kill.cause)
        self._ended_before = self._state.stopped_at is not None
        self._attribute_end(kill)
        self._stop = self._new_stop(None if kill.daemons else Exempt(self._process, self._record.pipe or None))
        if not kill.daemons:
            self._record_members()
        if kill.signal == "SIGTERM" and not stale:
            self._stop.terminate(deadline)
            return
        self._record_members()
        # On disk before the first signal, as below.
        self._publish()
        if stale:
            self._stop.escalate()
        else:
            self._stop.kill()

    def _new_stop(self, exempt: Exempt | None) -> StopSequence:
        output = self._record.pipe if self._output.open else None
        return StopSequence(self._tree, self._process, output=output, note=self._note_signalled, exempt=exempt)

    def _exempt_again(self, intent: Intent) -> Exempt | None:
        """Return whom a stop that a killed shim began leaves alone: no member that it had recorded as one to be ended.

        One whose parent has ended since would pass for a daemon now.
        """
        if intent.spared is None:
            return None
        others = set(self._record.members).difference(intent.spared)
        return Exempt(self._process, self._record.pipe or None, intent.spared, others)

    def _note_signalled(self, members: list[Member], signalled: list[Identity]) -> None:
        """Record which members get SIGTERM before it is sent: an understudy then signals none twice."""
        spared = self._stop.exempt.spared if self._stop is not None and self._stop.exempt is not None else ()
        self._record.members = [*(member.identity for member in members), *spared]
        if self._record.intent is not None:
            self._record.intent = replace(self._record.intent, signalled=signalled)
        self._record_spared()
        self._changed = True
        self._publish()

    def _join_stop(self, stop: StopSequence, kill: Kill, deadline: float) -> None:
        if kill.cause in OVERTAKING:
            self._attribute_end(kill)
        if kill.daemons and stop.exempt is not None and self._record.intent is not None:
            self._record.intent = replace(self._record.intent, spared=None)
            stop.include_daemons()
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
        survivors = [] if self._tree.gone else self._survivors(stop)
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
        if not (self._ended_before and self._state.killed_by):  # or it would be said of the process's own end
            self._change(escalated=stop.escalated)
        if self._process.pid in refused and self._state.stopped_at is None:
            self._change(killed_by=None)  # no signal of ours has reached it
        return replies

    def _survivors(self, stop: StopSequence) -> list[int]:
        """Return the members that outlived a stop; count an incident where `/proc` hides them (hidepid, proc(5))."""
        survivors = sorted(member.pid for member in stop.remaining())
        if not survivors and not stop.only_exempt:
            self._reap()  # a member that ended just now is no survivor
            if not self._tree.gone:
                self._count("unseen_survivors")
        return survivors

    def _report_incidents(self, now: float) -> None:
        """Report what writer and output have counted, at intervals: during a fault it grows with every line."""
        unreported = self._unreported_incidents()
        if unreported and (now - self._incidents_reported_at >= INCIDENT_INTERVAL or self._tree.gone):
            self._incidents_reported_at = now
            self._change(incidents=self._state.incidents | unreported)

    @property
    def _faulty(self) -> bool:
        """Tell whether writer or output have counted anything."""
        return bool(self._writer.faults or self._output.nonblocking)

    def _unreported_incidents(self) -> dict[str, int]:
        if not self._faulty:
            return {}
        counts = {kind: before + getattr(self._counters[kind], kind) for kind, before in self._counted_before.items()}
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
        """Record the tree, for a service that finds neither shim nor understudy alive."""
        members = self._tree.members()
        self._record.members = [member.identity for member in members]
        if self._stop is not None and self._stop.exempt is not None:
            self._stop.exempt.others(members)
        self._record_spared()

    def _record_spared(self) -> None:
        """Record which of the members just recorded a stop leaves alone; the others are to be ended."""
        exempt = self._stop.exempt if self._stop is not None else None
        if exempt is not None and self._record.intent is not None:
            spared = sorted(exempt.spared.intersection(self._record.members))
            self._record.intent = replace(self._record.intent, spared=spared)

    def _write_record(self) -> None:
        self._record.state = self._state
        try:
            self._copy.write(self._record)  # first: nothing is reported that an understudy might not know
            self._file.write(self._record)
        except OSError:  # the run goes on, and the next change tries again
            self._count("failed_records")

    def _notice_end_of_output(self) -> None:
        if self._output.open or self._pipe is None:
            return
        self._poller.unregister(self._pipe)
        del self._handlers[self._pipe]
        self._pipe = None
        self._change(output_open=False)


def _seconds_until(boottime_ns: int) -> float:
    return (boottime_ns - time.clock_gettime_ns(time.CLOCK_BOOTTIME)) / 1e9
