#!lua flags=no-writes
-- Reads what a shard's statistics say of some periods, added up. Changes nothing.
--
-- KEYS  see include/record.lua
-- ARGV  1 now or ''   2 the first minute and 3 the last one that count of what was not rolled yet   4… periods: `m:<minute>`, `h:<hour>`, `d:<day>`
-- Reply flat list of: `queue LF actor`, what was noted of it (see include/shown_stats.lua)
-- include clock
-- include shown_stats
local prefix, first, last, entries = string.sub(KEYS[3], 1, -5), tonumber(ARGV[2]), tonumber(ARGV[3]), {}
for i = 4, #ARGV do add_all(entries, prefix .. 'st:' .. ARGV[i]) end
if first <= last then
  add_all(entries, prefix .. 'st', function(minute) return minute >= first and minute <= last end)
end
return rows(entries)
