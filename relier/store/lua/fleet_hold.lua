#!lua flags=allow-oom
-- Holds a queue or an actor, or lifts that: its tasks wait, wherever they are, until it is lifted.
--
-- ARGV  1 now or ''   2 'set' or 'lift'   3 `queue LF name` or `actor LF name`   4 set: what is told about it (JSON)
--       5 lift: since when (µs) the hold has been there that is meant; '' for any
-- Reply {1 if this call changed it, else 0; the hold that was there before, or that is there now; false for none}
--
-- `set` leaves a hold that is there as it is, but that one which concerns some codes may come to concern others too; and `lift` one that is not the one meant: so each may be repeated, and a late repetition of a
-- `lift` with a time does not undo a later hold. A crash before it: nothing happened. After it: it holds, or is lifted, for every worker at
-- its next beat, whether or not anybody is told.
-- include clock
-- include fleet
-- How many codes one hold remembers; the oldest is long gone.
local CODES_KEPT = 16
local what, name = ARGV[2], ARGV[3]
local before = redis.call('HGET', HOLDS, name)

-- Returns the codes of both, or nil when there is nothing to add.
local function joined(old, new)
  if #old == 0 then return nil end
  if #new == 0 then return new end
  for _, code in ipairs(old) do
    if code == new[1] then return nil end
  end
  old[#old + 1] = new[1]
  if #old > CODES_KEPT then table.remove(old, 1) end
  return old
end

if what == 'set' then
  local now = int(now_us())
  local hold = cjson.decode(ARGV[4])
  if before then
    hold.codes = joined(cjson.decode(before).codes, hold.codes)
    if not hold.codes then return { 0, before } end
  end
  hold.since = now
  local told = cjson.encode(hold)
  redis.call('HSET', HOLDS, name, told, 'version', now)
  return { 1, told }
end
if not before then return { 0, false } end
if ARGV[5] ~= '' and cjson.decode(before).since ~= ARGV[5] then return { 0, before } end
if redis.call('HLEN', HOLDS) == 2 then
  redis.call('DEL', HOLDS)
else
  redis.call('HDEL', HOLDS, name)
  redis.call('HSET', HOLDS, 'version', int(now_us()))
end
return { 1, before }
