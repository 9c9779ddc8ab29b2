-- Ends a task from outside, for a reason that somebody gave: it never runs again. Used on what waits, and on dead letters; a running
-- task is its owner's. What waits for its idempotency key goes on, a copy that comes later finds it settled.
--
-- The caller has seen that the task may end, and saves the record in the same script: a crash before that changed nothing, after it the
-- task has ended and is counted once. `keep`: how long (µs) its id is remembered at least. `who`: nil when
-- the caller notes one event for many. Needs record, letters, due_time, end, result, idempotency, lots.
--
-- A day (µs): for callers that are not told how long.
local ENDED_KEPT = 86400000000
local function discard_task(id, rec, now, keep, reason, who)
  if rec[STATE] == 'd' then leave_dlq(id, rec) end
  if rec[STATE] == 's' then leave_lot(id, rec) end -- Nobody may ever come who lets it out.
  leave_key(id, rec, now)
  rec[REASON] = reason
  remember_end(id, rec, 'discarded', keep)
  count_discarded(rec, reason)
  if who then event(now, 'discarded', id, 'reason', reason, 'by', who) end
end

-- Ends a task that was asked to end (see ENDS_AS) and that nobody runs. The caller saves the record.
local function end_as_asked(id, rec, now, keep, who)
  rec[STICKY] = true -- Somebody looks for how it ended.
  discard_task(id, rec, now, keep, ENDS_AS[rec[REASON]], who)
end
