#!lua flags=allow-oom
-- Parks due records that no living worker can run; one whose actor nobody knows for too long becomes a dead letter.
--
-- ARGV  1 now or ''   2 how long an unknown actor is waited for (µs)   3 how long at most until a record is looked at again (µs)
--       4… triples of task id, fence, and '' when nobody consumes its queue, else the failure of one whose actor nobody knows, encoded
-- Reply ids of those that became dead letters
--
-- Accepts `waiting` and ownerless `hooks pending` under exactly this fence; what moved on is left alone. Ended tasks are only parked.
-- A crash before it: the records are due and looked at again. After it: parked, or dead; a repetition changes nothing more.
-- include clock
-- include record
-- include due_time
-- include park
local now, grace, longest = now_us(), tonumber(ARGV[2]), tonumber(ARGV[3])
local at, letters = due_time(now), {}

local function dead_letter(id, rec, failure)
  leave_lot(id, rec)
  rec[STATE], rec[FENCE], rec[RESULT], rec[STICKY] = 'd', next_fence(now, rec[FENCE]), failure, true
  to_dlq(id, rec, now, 'ActorNotFound')
  letters[#letters + 1] = id
end

for i = 4, #ARGV, 3 do
  local id, fence, failure = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2]
  local rec = load(id)
  if rec and rec[FENCE] == fence and awaits_publication(rec) then
    local since = enter_lot(id, rec, failure == '' and NO_CONSUMER or UNKNOWN_ACTOR, at)
    local given_up = failure ~= '' and rec[STATE] == 's' and at - since >= grace
    if given_up then
      dead_letter(id, rec, failure)
    elseif failure ~= '' and rec[STATE] == 's' then
      set_due(id, math.min(since + grace, at + longest))
    else
      set_due(id, at + longest)
    end
    save(id, rec)
  end
end
return letters
