#!lua flags=allow-oom
-- Records that a run completed its task.
--
-- ARGV  1 now or ''   2 caller   3 task id   4 fence   5 '1' if hooks are still to run   6 result to replay them with
--       7 retention (µs)   8 the task's protections (JSON), '' when it has none   9… settles
--         key     its idempotency key (see claim.lua)
--         res     how long (ms) the result is kept; none when it is not
--         marker  what is kept in its place: it is too large, or cannot be encoded (see include/result.lua)
--         late    when (µs) its latency objective is missed; none where it has none
--         ok      the code that it ran with, when its success is to be known (see include/success.lua)
-- Reply accepted · refused · lost · unknown (see astray)
--
-- Accepts `running` under exactly this fence; the same call repeated is accepted again and counted once (R2). `lost`: the store
-- forgot this run; the caller adopts it and commits again, so a commit that finds no record is accepted in two steps (R5).
-- A crash before it: the task is still running, its owner's burial brings it back. A crash after it: with hooks the record is
-- owned and replayed (R7), without hooks the task has ended and late copies find it settled. The result is kept in the same step:
-- whoever finds the task completed finds it too, until it expires. So is its key: whoever waits for it is let go.
-- include clock
-- include record
-- include stats
-- include due_time
-- include end
-- include result
-- include settle
-- include idempotency
-- include success
local now = now_us()
local caller, id, fence, hooks, keep = ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5] == '1', tonumber(ARGV[7])
local protections = ARGV[8] ~= '' and cjson.decode(ARGV[8]) or {}

local function finish(rec)
  if asked_to_end(rec) then rec[REASON] = '' end -- Too late.
  count(rec, 'completed', 1, observed(RUN_TIMES, now - rec[GRANTED]))
  if protections.late and now > protections.late then note(rec, 'slow', 1) end
  if protections.ok then note_success(rec[ACTOR], now, protections.ok) end
  if protections.res then keep_result(id, protections.marker or 'v' .. ARGV[6], protections.res) end
  if protections.key then keys().complete(id, protections.key, now) end
  if hooks then
    drop_checkpoint(id, rec)
    rec[STATE], rec[OUTCOME], rec[RESULT] = 'h', 'completed', ARGV[6]
  else
    remember_end(id, rec, 'completed', keep)
  end
  save(id, rec)
  return 'accepted'
end

settle_rest(9, keep)
local rec, newer = load(id)
local stray = astray(id, rec, newer, caller, fence)
if stray then return stray end
if rec and rec[FENCE] == fence then
  if rec[STATE] == 'r' then return finish(rec) end
  if rec[OUTCOME] == 'completed' then return 'accepted' end
end
count(rec, 'refused')
event(now, 'refused', id, 'worker', caller, 'fence', int(fence))
return 'refused'
