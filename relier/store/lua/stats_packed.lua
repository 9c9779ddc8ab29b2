#!lua flags=no-writes
-- Reads what a shard's statistics say of all time, at one moment and as they are kept: who reads them again and again unpacks only what has changed.
--
-- KEYS  see include/record.lua
-- ARGV  1 now or ''
-- Reply {what was noted until each entry's last roll, what was noted since: flat lists of `queue LF actor` and a packed map, see
--        include/stats.lua; the fields of META and their values}
local prefix = string.sub(KEYS[3], 1, -5)
return { redis.call('HGETALL', prefix .. 'st:all'), redis.call('HGETALL', prefix .. 'st'), redis.call('HGETALL', KEYS[3]) }
