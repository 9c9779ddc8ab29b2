#!lua flags=allow-oom
-- Parks due records that no living worker can run; one whose reason lasts too long becomes a dead letter.
--
-- ARGV  1 now or ''   2 how long at most until a record is looked at again (µs)
--       3… for each record: task id, fence, reason (see include/park.lua), and how long that may last (µs) with the failure, encoded,
--       of the dead letter that it becomes then; '' and '' when it waits as long as it takes
-- Reply ids of those that became dead letters
--
-- Accepts `waiting` and ownerless `hooks pending` under exactly this fence; what moved on is left alone. Ended tasks are only parked.
-- A crash before it: the records are due and looked at again. After it: parked, or dead; a repetition changes nothing more.
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
-- include park
local now, longest = now_us(), tonumber(ARGV[2])
local at, letters = due_time(now), {}

local function dead_letter(id, rec, failure)
  local reason = PARKED[rec[REASON]]
  leave_lot(id, rec)
  rec[STATE], rec[FENCE], rec[RESULT], rec[STICKY] = 'd', next_fence(now, rec[FENCE]), failure, true
  to_dlq(id, rec, now, reason, failure_text(failure))
  leave_key(id, rec, now)
  letters[#letters + 1] = id
end

for i = 3, #ARGV, 5 do
  local id, fence, reason, grace, failure = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2], tonumber(ARGV[i + 3]), ARGV[i + 4]
  local rec = load(id)
  if rec and rec[FENCE] == fence and awaits_publication(rec) then
    local since = enter_lot(id, rec, reason, at)
    rec[DECLINED] = 0
    if not grace or rec[STATE] ~= 's' then
      set_due(id, at + longest)
    elseif at - since >= grace then
      dead_letter(id, rec, failure)
    else
      set_due(id, math.min(since + grace, at + longest))
    end
    save(id, rec)
  end
end
return letters
