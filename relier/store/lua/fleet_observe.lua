#!lua flags=no-writes
-- Shows the fleet to an observer, without what workers told about themselves.
--
-- ARGV  1 now or ''
-- Reply {server time in µs, flat list of worker id and beat counter, ids with obligations, flat list of slot and lease,
--        flat list of worker id and pulse counter}
-- include clock
-- include fleet
return { int(now_us()), redis.call('HGETALL', BEATS), redis.call('HKEYS', OBLIGATIONS), redis.call('HGETALL', LEASES),
         redis.call('HGETALL', PULSES) }
