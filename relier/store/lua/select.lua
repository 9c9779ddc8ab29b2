#!lua flags=no-writes
-- Reads one page of a shard's tasks, for people: counts all of them by status, and tells those that are wanted and new enough. Nothing
-- here decides anything.
--
-- ARGV  1 now or ''   2 records, or ended: the ids of ended tasks that have no record   3 cursor ('0' at first)   4 about how many
--       5 what is wanted (JSON): status, actor, queue, reason: equal; since: made then or later (s); parked, queued: the reasons of tasks
--         with those statuses; floor: nothing that sorts before {made (µs), granted (µs), due (µs), id} is told
-- Reply {next cursor ('0' at the end), flat list of status and how many, the queues and the actors of those, a list of what
--        include/row.lua tells; {id} of one that has no record}
--
-- Records may come twice, as HSCAN has it; the statuses are those of Summary.status in survey.py.
-- include clock
-- include record
-- include shown
-- include row
local now, wanted = now_us(), cjson.decode(ARGV[5])
local counts, queues, actors, rows = {}, {}, {}, {}
local parked, queued = {}, {}
for _, reason in ipairs(wanted.parked) do parked[reason] = true end
for _, reason in ipairs(wanted.queued) do queued[reason] = true end

local function status_of(id, rec)
  local state = rec[STATE]
  if state == 'r' then return 'running' end
  if state ~= 's' then return rec[OUTCOME] ~= '' and rec[OUTCOME] or 'unknown' end
  local due = tonumber(shown_due(id, rec, now)) or 0
  if parked[rec[REASON]] or (due > 0 and due <= now) then return 'due' end
  return (rec[PUBS] > 0 or queued[rec[REASON]]) and 'queued' or 'scheduled'
end

local function is_new_enough(id, created, granted, due)
  local floor = wanted.floor
  if not floor then return true end
  if created ~= floor[1] then return created > floor[1] end
  if granted ~= floor[2] then return granted > floor[2] end
  local at = tonumber(due()) or 0
  if at ~= floor[3] then return at > floor[3] end
  return id >= floor[4]
end

local function fits(rec, status)
  return (not wanted.status or wanted.status == status) and (not wanted.actor or wanted.actor == rec[ACTOR])
    and (not wanted.queue or wanted.queue == rec[QUEUE]) and (not wanted.reason or wanted.reason == rec[REASON])
    and (not wanted.since or rec[CREATED] >= wanted.since)
end

local function count(status) counts[status] = (counts[status] or 0) + 1 end
local function never() return 0 end

local function add_record(id, rec)
  if rec[VERSION] > FORMAT then
    count('unknown')
    if not (wanted.status or wanted.actor or wanted.queue or wanted.reason or wanted.since) then rows[#rows + 1] = { id, 'newer' } end
    return
  end
  local status = status_of(id, rec)
  count(status)
  queues[rec[QUEUE]], actors[rec[ACTOR]] = true, true
  local function due() return shown_due(id, rec, now) end
  local created = math.floor(rec[CREATED] * 1000000 + 0.5)
  if fits(rec, status) and is_new_enough(id, created, tonumber(rec[GRANTED]) or 0, due) then rows[#rows + 1] = row_of(id, rec, now) end
end

local plain = not (wanted.actor or wanted.queue or wanted.reason or wanted.since) and (wanted.status or 'completed') == 'completed'
local function add_ended(id, age)
  if string.sub(age, -2) == '.5' or redis.call('HEXISTS', REC, id) == 1 then return end -- a mark; or a record tells more
  count('completed')
  if plain and is_new_enough(id, 0, 0, never) then rows[#rows + 1] = { id } end
end

local page
if ARGV[2] == 'records' then
  page = redis.call('HSCAN', REC, ARGV[3], 'COUNT', ARGV[4])
  for i = 1, #page[2], 2 do add_record(page[2][i], cmsgpack.unpack(page[2][i + 1])) end
else
  page = redis.call('ZSCAN', END, ARGV[3], 'COUNT', ARGV[4])
  for i = 1, #page[2], 2 do add_ended(page[2][i], page[2][i + 1]) end
end

local function names(set)
  local out = {}
  for name in pairs(set) do out[#out + 1] = name end
  return out
end

local counted = {}
for status, number in pairs(counts) do counted[#counted + 1], counted[#counted + 2] = status, number end
return { page[1], counted, names(queues), names(actors), rows }
