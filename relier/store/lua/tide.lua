#!lua flags=allow-oom
-- Confirms to a sweeper how far the store's time has come, and finds out whether the store went back behind what it confirmed before: a promoted
-- replica lacked the last writes, a restart lost them, or a backup was restored.
--
-- KEYS  see include/record.lua
-- ARGV  1 now or ''   2 what was confirmed to the caller last (µs; 0: nothing)
-- Reply {what is confirmed now, what was confirmed last as far as the store knows}
--
-- `tide` never goes back by itself. Below what the caller heard, it proves that writes since then may be gone: all of one server's writes are
-- lost from one point on. A crash before it: the caller asks again. After it: the rollback is on record, and confirmed anew, so it counts once.
-- `rolled` keeps the last one: since when, until when, and when that was found out (µs).
-- include clock
-- include record
-- include stats
local now, heard = now_us(), tonumber(ARGV[2])
local known = tonumber(redis.call('HGET', META, 'tide') or '0')
if known < heard then
  count(nil, 'rollbacks')
  redis.call('HSET', META, 'rolled', int(known) .. ' ' .. int(heard) .. ' ' .. int(now))
  event(now, 'store went back', '', 'from', int(heard), 'to', int(known))
end
local tide = math.max(now, known + 1, heard)
redis.call('HSET', META, 'tide', int(tide))
return { int(tide), int(known) }
