#!lua flags=no-writes
-- Reads what a shard's statistics say of all time, at one moment. Changes nothing.
--
-- KEYS  see include/record.lua
-- ARGV  1 now or ''   2 '1': the counters too
-- Reply {flat list of: `queue LF actor`, what was noted of it (see include/shown_stats.lua); the fields of META and their values, if they are wanted}
-- include clock
-- include shown_stats
local prefix, entries = string.sub(KEYS[3], 1, -5), {}
add_all(entries, prefix .. 'st:all')
add_all(entries, prefix .. 'st')
return { rows(entries), ARGV[2] == '1' and redis.call('HGETALL', KEYS[3]) or {} }
