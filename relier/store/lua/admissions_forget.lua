-- Forgets what was admitted in a shard, so that every limit begins anew. Counters stay.
--
-- KEYS  1 adm   2 adm.at   3 meta   (see admit.lua)
-- ARGV  1 now or ''
-- Reply how many limits were forgotten
--
-- Permits that processes hold may still be used until their sub-buckets end; they are not taken back, since the epoch is another one.
local limits = redis.call('HLEN', KEYS[1])
redis.call('DEL', KEYS[1], KEYS[2])
return limits
