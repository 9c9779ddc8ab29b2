#!lua flags=allow-oom
-- Takes, renews and gives back leases. A lease names its holder and a counter that the holder moves; it has no time in it. Whoever
-- saw one unmoved for long enough on its own monotonic clock may replace exactly what it saw, so no clock jump frees or freezes one.
--
-- ARGV  1 now or ''   2… triples of slot, the lease that the caller last saw ('' for none), the lease that it wants ('' gives it back)
-- Reply the leases after the call, flat list of slot and lease
--
-- A crash after it: the counter stands still and another one takes the slot. Two holders at once do double work, and no harm.
-- include clock
-- include fleet
for i = 2, #ARGV, 3 do
  local slot, seen, wanted = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if (redis.call('HGET', LEASES, slot) or '') == seen then
    if wanted == '' then redis.call('HDEL', LEASES, slot) else redis.call('HSET', LEASES, slot, wanted) end
  end
end
return redis.call('HGETALL', LEASES)
