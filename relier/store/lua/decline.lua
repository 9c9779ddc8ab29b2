#!lua flags=allow-oom
-- Takes custody of a copy that its worker cannot run, because its code lacks the actor or is older than the payload: an older version in
-- a rolling deploy. Nothing counts as an attempt or a crash.
--
-- ARGV  1 now or ''   2 caller   3 task id   4 fence in the copy's stamp (0: a first-hand copy)   5 max resurrections
--       6 queue   7 actor   8 payload version   9 body   10 who is told when it is dead (see include/record.lua)
-- Reply declined · stale · busy · settled · newer (a newer format has it): the caller acknowledges its copy · fenced: it does not
--
-- Accepts no record and `waiting`, which become due at once under a new fence, and ended tasks whose hooks wait for an owner; also, like
-- claim, what a loss of data has set back. Everything else moves by itself, so its copy is only acknowledged (R4).
-- A crash before it: the broker still has the copy. After it: the record is due, and the copy is stale. Repeated, it answers `stale`.
--
-- Nothing keeps the next copy from the same worker, so a task that is declined again and again waits longer each time.
-- include clock
-- include record
-- include stats
-- include due_time
-- include end

-- How long (µs) a task waits after it was declined for the second time, doubling from then on, and at most.
local AGAIN, LONGEST = 250000, 5000000
local now = now_us()
local caller, id, seen = ARGV[2], ARGV[3], tonumber(ARGV[4])
if buried(caller) then return 'fenced' end
local rec, newer = load(id)
if newer then return 'newer' end
meet_mark(id, rec, now, seen, ARGV[6], ARGV[7])

local function decline()
  local before = rec[DECLINED]
  rec[FENCE], rec[PAYLOAD_VERSION], rec[BODY] = math.max(rec[FENCE], seen), tonumber(ARGV[8]), ARGV[9]
  rec[DECLINED] = before + 1
  put_back(id, rec, now, before == 0 and AT_ONCE or due_time(now) + math.min(LONGEST, AGAIN * 2 ^ math.min(before - 1, 20)))
  save(id, rec)
  count(rec, 'declined')
  event(now, 'declined', id, 'worker', caller)
  return 'declined'
end

if not rec then
  if remembered(id) or (seen > 0 and seen <= floor()) then return 'settled' end
  rec = new_record('s', now, ARGV[6], ARGV[7], tonumber(ARGV[5]), tonumber(ARGV[8]), ARGV[9])
  rec[ON_DEAD] = ARGV[10]
  count(rec, 'accepted')
  return decline()
end
local state = rec[STATE]
if seen > rec[FENCE] and (state == 's' or state == 'r') then
  event(now, 'store lost data', id, 'fence', int(seen))
  return decline()
end
if state == 's' and is_current(rec, seen) then return decline() end
rec[STICKY] = true
if state == 'h' and rec[OWNER] == '' then set_due(id, AT_ONCE) end
save(id, rec)
return ({ s = 'stale', r = 'busy', h = 'busy' })[state] or 'settled'
