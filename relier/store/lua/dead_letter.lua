#!lua flags=allow-oom
-- Makes a dead letter of a copy that cannot even be claimed: undecodable bytes, or an actor that nobody knows.
--
-- ARGV  1 now or ''   2 task id   3 queue   4 actor   5 reason   6 the failure, encoded   7 the raw body   8 fence in the copy's stamp
--       9 payload version   10 who is told, if the record does not say so (see include/record.lua)
-- Reply dead · exists
--
-- Accepts only an id without record, or `waiting`. A crash before it: the broker still has the copy. After it: it is in the DLQ, and
-- the copy that comes back is acknowledged.
-- include clock
-- include record
-- include stats
-- include letters
-- include due_time
-- include end
-- include result
-- include settle
-- include idempotency
local now = now_us()
local id = ARGV[2]
local rec, newer = load(id)
if not newer then meet_mark(id, rec, now, tonumber(ARGV[8]), ARGV[3], ARGV[4]) end
if newer or remembered(id) or (rec and rec[STATE] ~= 's') then return 'exists' end
if not rec and tonumber(ARGV[8]) > 0 and tonumber(ARGV[8]) <= floor() then return 'exists' end -- settled and forgotten
if not rec then
  rec = new_record('d', now, ARGV[3], ARGV[4], 0, tonumber(ARGV[9]), ARGV[7])
  count(rec, 'accepted')
end
if rec[ON_DEAD] == '' then rec[ON_DEAD] = ARGV[10] end
rec[STATE], rec[FENCE], rec[RESULT], rec[STICKY] = 'd', next_fence(now, rec[FENCE]), ARGV[6], true
to_dlq(id, rec, now, ARGV[5], failure_text(ARGV[6]))
if ARGV[5] == 'PayloadIntegrityError' then count(rec, 'integrity_failures') end
leave_key(id, rec, now)
save(id, rec)
return 'dead'
