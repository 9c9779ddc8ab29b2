#!lua flags=allow-oom
-- Records that a run failed: the task is scheduled again, or becomes a dead letter.
--
-- ARGV  1 now or ''   2 caller   3 task id   4 fence   5 'retry' or 'dead'   6 delay (µs) until the retry
--       7 '1' if the failure counts as an attempt   8 '1' if hooks are to run (dead only)   9 reason   10 fingerprint
--       11 the failure, encoded   12 short text for the run's history   13 so many identical failures in a row end the task; 0: no number does
-- Reply retry · dead · discarded (it was asked to end; no hooks run) · refused · lost · unknown (see astray). Whoever asked for a retry may be told `dead`, and then runs the hooks.
--
-- Accepts `running` under exactly this fence; repeated, it answers its first verdict (R2): a retry keeps the run's fence until the
-- next claim. A crash before it: burial counts a crash instead of the failure. A crash after it: the record is due, or dead (with
-- hooks pending it is owned, and replayed). Nothing else schedules a retry, so none is lost between two systems.
--
-- The row of identical failures is in the record, so crashes, hand-overs and other workers in between do not break it. A failure that
-- does not count says nothing about the task, and neither breaks nor lengthens it.
-- include clock
-- include record
-- include stats
-- include letters
-- include due_time
-- include end
-- include result
-- include settle
-- include idempotency
-- include lots
-- include discarding
local now = now_us()
local caller, id, fence, verdict = ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
local rec, newer = load(id)
local stray = astray(id, rec, newer, caller, fence)
if stray then return stray end
if not rec or rec[FENCE] ~= fence then
  count(rec, 'refused')
  event(now, 'refused', id, 'worker', caller, 'fence', int(fence))
  return 'refused'
end
if rec[STATE] == 's' then return 'retry' end
if rec[OUTCOME] == 'dead' then return 'dead' end
if rec[OUTCOME] == 'discarded' then return 'discarded' end
if rec[STATE] ~= 'r' then return 'refused' end

remember_run(rec, caller, now, 'failed', ARGV[12])
rec[RESULT] = ARGV[11]
if ARGV[7] == '1' then rec[ATTEMPT] = rec[ATTEMPT] + 1 end
if ARGV[7] == '1' or verdict == 'dead' then
  local again = rec[FINGERPRINT] == ARGV[10] and ARGV[10] ~= ''
  rec[FINGERPRINT], rec[ALIKE] = ARGV[10], again and rec[ALIKE] + 1 or 1
  local most = tonumber(ARGV[13] or '0')
  if verdict == 'retry' and most > 0 and rec[ALIKE] >= most and not asked_to_end(rec) then
    verdict = 'dead'
    count(rec, 'stopped_identical')
    event(now, 'identical failures', id, 'times', rec[ALIKE], 'fingerprint', ARGV[10])
  end
end
count(rec, 'failed', 1, observed(RUN_TIMES, now - rec[GRANTED]))
if asked_to_end(rec) then
  end_as_asked(id, rec, now, ENDED_KEPT, caller)
  verdict = 'discarded'
elseif verdict == 'retry' then
  disown(id, rec)
  rec[STATE], rec[REASON], rec[PUBS], rec[NONCE] = 's', ARGV[9], 0, ''
  set_due(id, due_time(now) + tonumber(ARGV[6]))
  count(rec, 'retries')
else
  to_dlq(id, rec, now, ARGV[9], ARGV[12])
  leave_key(id, rec, now)
  if ARGV[8] == '1' then
    rec[STATE] = 'h'
  else
    disown(id, rec)
    rec[STATE] = 'd'
  end
end
save(id, rec)
return verdict
