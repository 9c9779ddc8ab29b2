#!lua flags=allow-oom
-- Takes a worker out of the fleet, once per identity: declared dead by an observer, or leaving in order.
--
-- ARGV  1 now or ''   2 worker   3 'crash' or 'left'   4 oldest parting to remember (µs)
-- Reply 1 if this call did it, else 0
--
-- R6: the obligation to bury it in every shard and to return its prefetched messages is stored in the same step, so that a crash of
-- whoever called leaves it visible; it is removed when all of it is done.
-- include clock
-- include fleet
local now = now_us()
local told = redis.call('HGET', WORKERS, ARGV[2])
if not told then return 0 end
redis.call('HDEL', WORKERS, ARGV[2])
redis.call('HDEL', BEATS, ARGV[2])
redis.call('HDEL', PULSES, ARGV[2])
redis.call('HDEL', BUSY, ARGV[2])
redis.call('ZADD', GONE, int(now), ARGV[2])
redis.call('ZREMRANGEBYSCORE', GONE, '-inf', '(' .. int(now - tonumber(ARGV[4])))
redis.call('HSET', OBLIGATIONS, ARGV[2], cjson.encode({ how = ARGV[3], at = int(now), told = told }))
return 1
