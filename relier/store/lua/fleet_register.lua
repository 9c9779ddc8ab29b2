-- Makes a worker known, before it consumes anything.
--
-- ARGV  1 now or ''   2 worker   3 what it tells about itself (JSON)   4 digest of its actors, or ''   5 their names and
--       newest payload versions (a JSON object; an earlier version wrote a list of names)
--       6 when it began (s, its clock)   7… pairs of an actor and its objective (JSON with that time as `at`), '' for none
-- Reply ok · gone (this identity was declared dead; come back under a new one)
--
-- A crash after it: the worker never beats and is declared dead like any other.
-- include clock
-- include fleet
-- How many sets of actors are kept before those that no living worker has are dropped.
local ACTORS_KEPT = 64
-- Of how many actors the objectives are kept; they stay when no worker lives any more.
local OBJECTIVES_KEPT = 1000
if redis.call('ZSCORE', GONE, ARGV[2]) then return 'gone' end
redis.call('HSET', WORKERS, ARGV[2], ARGV[3])
if ARGV[4] ~= '' and redis.call('HSETNX', ACTORS, ARGV[4], ARGV[5]) == 1 and redis.call('HLEN', ACTORS) > ACTORS_KEPT then
  local told = table.concat(redis.call('HVALS', WORKERS))
  for _, digest in ipairs(redis.call('HKEYS', ACTORS)) do
    if not string.find(told, digest, 1, true) then redis.call('HDEL', ACTORS, digest) end
  end
end
redis.call('HSETNX', BEATS, ARGV[2], '0')
-- Of two releases that live side by side, what the worker that began last says is so, whoever registers again.
local begun = tonumber(ARGV[6] or '0')
for i = 7, #ARGV, 2 do
  local kept = redis.call('HGET', OBJECTIVES, ARGV[i])
  local is_new = not kept and ARGV[i + 1] ~= '' and redis.call('HLEN', OBJECTIVES) < OBJECTIVES_KEPT
  if is_new or (kept and cjson.decode(kept).at <= begun) then
    redis.call('HSET', OBJECTIVES, ARGV[i], ARGV[i + 1] ~= '' and ARGV[i + 1] or cjson.encode({ at = begun }))
  end
end
return 'ok'
