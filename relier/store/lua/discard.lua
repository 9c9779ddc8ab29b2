#!lua flags=allow-oom
-- Ends a task on request: too old, skipped by a foreign middleware or by the actor, cancelled.
--
-- ARGV  1 now or ''   2 caller   3 task id   4 fence (0: the task was not claimed)   5 reason   6 retention (µs)
--       7 queue   8 actor   9 fence in the copy's stamp   10 '1' if its end is to be found for as long as a result would be
-- Reply discarded · refused · lost · unknown (see astray)
--
-- Without a fence it accepts no record and `waiting`; with one only `running` under exactly this fence, so that a run that was
-- overtaken discards nothing (R3). Repeated, it answers the same and counts once.
-- A crash before it: the copy comes back and is judged again. A crash after it: the id is remembered, the copy finds it settled.
-- include clock
-- include record
-- include stats
-- include due_time
-- include end
-- include result
-- include settle
-- include idempotency
local now = now_us()
local caller, id, fence, reason = ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
local rec, newer = load(id)
if newer then return 'refused' end
local stray = fence > 0 and astray(id, rec, newer, caller, fence)
if stray then return stray end
if fence == 0 then meet_mark(id, rec, now, tonumber(ARGV[9]), ARGV[7], ARGV[8]) end
if rec and rec[STATE] == 'e' then
  return (rec[OUTCOME] == 'discarded' or rec[OUTCOME] == MARKED) and 'discarded' or 'refused'
end
if fence == 0 and (rec and rec[STATE] ~= 's' or not rec and remembered(id)) then return 'refused' end
if fence > 0 and not (rec and rec[STATE] == 'r' and rec[FENCE] == fence) then return 'refused' end
if not rec and tonumber(ARGV[9]) > 0 and tonumber(ARGV[9]) <= floor() then return 'discarded' end -- settled and forgotten
if not rec then
  rec = new_record('s', now, ARGV[7], ARGV[8], 0, 0, '')
  rec[FENCE] = next_fence(now, fence)
  count(rec, 'accepted')
end
reason = asked_to_end(rec) or reason
leave_key(id, rec, now)
rec[REASON] = reason
if ARGV[10] == '1' then rec[STICKY] = true end
remember_end(id, rec, 'discarded', tonumber(ARGV[6]))
save(id, rec)
count_discarded(rec, reason)
event(now, 'discarded', id, 'reason', reason, 'worker', caller)
return 'discarded'
