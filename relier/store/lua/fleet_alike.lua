#!lua flags=allow-oom
-- Counts the different tasks that failed alike: tasks of one actor, under one code, with one fingerprint. What it counts decides nothing by
-- itself; whoever sees enough of them parks the actor.
--
-- ARGV  1 now or ''   2 'count' or 'forget'   3 the name of what they have in common   4 count: the task's id
--       5 count: a time (µs); what failed until then does not count, because one succeeded
-- Reply how many different tasks there are
--
-- Keys: alike:<name>  zset task id -> when (µs) it failed last; forgotten a day after the last failure.
-- A crash before it: one failure is not counted, the next task's is. Repeated, it counts the same task again, which changes nothing.
-- include clock
-- include fleet
local KEPT, DAY_MS = 1000, 86400000
local now, key = now_us(), string.sub(WORKERS, 1, -8) .. 'alike:' .. ARGV[3]
if ARGV[2] == 'forget' then
  redis.call('DEL', key)
  return 0
end
redis.call('ZADD', key, int(now), ARGV[4])
redis.call('ZREMRANGEBYSCORE', key, '-inf', ARGV[5])
redis.call('ZREMRANGEBYRANK', key, 0, -KEPT - 1)
redis.call('PEXPIRE', key, DAY_MS)
return redis.call('ZCARD', key)
