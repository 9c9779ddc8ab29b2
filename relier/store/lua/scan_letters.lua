#!lua flags=no-writes
-- Reads one page of a shard's dead letters, oldest first, for people and tools: nothing here decides anything.
--
-- ARGV  1 now or ''   2 the page's first time of death (µs)   3 how many letters of that time were read already   4 how many at most
--       5 the last time of death (µs) that is wanted   6 what is wanted (JSON): actor, queue, reason: equal; fingerprint: how it begins
--       7 what to tell of those: ids, groups or plan   8 groups: how long (µs) the two times are that tell the trend
-- Reply {next page's first time ('' at the end), its number of letters read already, letters wanted in the page, flat list}
--       ids     task id, time of death
--       groups  of each fingerprint (else actor and reason): fingerprint, actor, reason, letters, first and last time of death, how many
--               within the last time and within the one before it, id and message of the last one
--       plan    of each actor, queue and payload version: those three, letters
--
-- A page begins with a time and a number because many letters may have died at once. One that comes or goes meanwhile is told or not.
-- include clock
-- include record
-- include letters
-- include letter_of
local now, from, skip, size = now_us(), ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local wanted, what, span = cjson.decode(ARGV[6]), ARGV[7], tonumber(ARGV[8])
local page = redis.call('ZRANGEBYSCORE', DLQ, from, ARGV[5], 'WITHSCORES', 'LIMIT', skip, size)
if #page == 0 then return { '', 0, 0, {} } end

local function fits(letter)
  return (not wanted.actor or letter[L_ACTOR] == wanted.actor) and (not wanted.queue or letter[L_QUEUE] == wanted.queue)
    and (not wanted.reason or letter[L_REASON] == wanted.reason)
    and (not wanted.fingerprint or string.sub(letter[L_FINGERPRINT], 1, #wanted.fingerprint) == wanted.fingerprint)
end

local order, rows = {}, {}
local function add_row(key, row)
  rows[key] = row
  order[#order + 1] = row
  return row
end

local function add_to_group(id, letter, died)
  local key = table.concat({ letter[L_ACTOR], letter[L_REASON], letter[L_FINGERPRINT] }, '\n')
  local row = rows[key] or add_row(key, { letter[L_FINGERPRINT], letter[L_ACTOR], letter[L_REASON], 0, died, died, 0, 0, '', '' })
  row[4] = row[4] + 1
  if died > now - span then row[7] = row[7] + 1 elseif died > now - 2 * span then row[8] = row[8] + 1 end
  row[6], row[9], row[10] = died, id, letter[L_MESSAGE]
end

local function add_to_plan(letter)
  local parts = { letter[L_ACTOR], letter[L_QUEUE], letter[L_PAYLOAD_VERSION] }
  local key = table.concat(parts, '\n')
  local row = rows[key] or add_row(key, { parts[1], parts[2], parts[3], 0 })
  row[4] = row[4] + 1
end

local ids = {}
for i = 1, #page, 2 do ids[#ids + 1] = page[i] end
local found, out, matching = redis.call('HMGET', LETTERS, unpack(ids)), {}, 0
local all = what == 'ids' and next(wanted) == nil
for n, id in ipairs(ids) do
  local died = tonumber(page[2 * n])
  local letter = not all and letter_of(id, found[n], died)
  if all or (letter and fits(letter)) then
    matching = matching + 1
    if what == 'groups' then
      add_to_group(id, letter, died)
    elseif what == 'plan' then
      add_to_plan(letter)
    else
      out[#out + 1], out[#out + 2] = id, int(died)
    end
  end
end
for _, row in ipairs(order) do
  if what == 'groups' then row[5], row[6] = int(row[5]), int(row[6]) end
  for _, value in ipairs(row) do out[#out + 1] = value end
end

if #ids < size then return { '', 0, matching, out } end
local last, same = page[#page], 0
while same < #ids and page[#page - 2 * same] == last do same = same + 1 end
if tonumber(last) == tonumber(from) then same = same + skip end
return { int(tonumber(last)), same, matching, out }
