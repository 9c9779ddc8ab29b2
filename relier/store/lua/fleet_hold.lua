#!lua flags=allow-oom
-- Holds a queue or an actor, or lifts that: its tasks wait, wherever they are, until it is lifted.
--
-- ARGV  1 now or ''   2 'set' or 'lift'   3 `queue LF name` or `actor LF name`   4 set: what is told about it (JSON)
--       5 lift: since when (µs) the hold has been there that is meant; '' for any
-- Reply {1 if this call changed it, else 0; the hold that was there before, or that is there now; false for none}
--
-- `set` leaves a hold that is there as it is, and `lift` one that is not the one meant: so each may be repeated, and a late repetition of a
-- `lift` with a time does not undo a later hold. A crash before it: nothing happened. After it: it holds, or is lifted, for every worker at
-- its next beat, whether or not anybody is told.
-- include clock
-- include fleet
local what, name = ARGV[2], ARGV[3]
local before = redis.call('HGET', HOLDS, name)
if what == 'set' then
  if before then return { 0, before } end
  local now = int(now_us())
  local hold = cjson.decode(ARGV[4])
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
