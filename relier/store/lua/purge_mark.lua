#!lua flags=allow-oom
-- Sets purge marks in one shard.
--
-- ARGV  1 now or ''   2 the marks' time (µs), in whole seconds   3 how long they are kept (µs)   4 how many a shard keeps at most
--       5 who sets them   6… whom each concerns (see include/purging.lua)
-- Reply how many marks the shard has · -1: it would be too many, and nothing was changed
--
-- A newer mark stays when an older one is to be set. A crash before it: no mark. After it: the shard refuses what is older; a purge that
-- was killed before it reached every shard is repeated by whoever asked for it. Repeated, it changes nothing but the time of writing.
-- include clock
-- include record
-- include purging
local now, at, keep, most, who = now_us(), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]

local stored = redis.call('HGETALL', MARKS)
local marks, gone, there = {}, {}, 0
for i = 1, #stored, 2 do
  local mark = cmsgpack.unpack(stored[i + 1])
  if mark[M_VERSION] <= MARK_FORMAT and mark[M_WRITTEN] < now - keep then
    gone[#gone + 1] = stored[i]
  else
    marks[stored[i]] = mark
    there = there + 1
  end
end
local set = {}
for i = 6, #ARGV do
  local mark = marks[ARGV[i]]
  if not mark then there = there + 1 end
  if not mark or (mark[M_VERSION] <= MARK_FORMAT and (mark[M_AT] <= at or mark[M_WRITTEN] > now + CLOCK_STEP)) then
    set[#set + 1] = ARGV[i]
  end
end
if there > most then return -1 end
for _, name in ipairs(gone) do redis.call('HDEL', MARKS, name) end
for _, name in ipairs(set) do
  redis.call('HSET', MARKS, name, cmsgpack.pack({ MARK_FORMAT, at, now, who }))
  event(now, 'purge mark', '', 'concerns', name, 'at', int(at), 'by', who)
end
if there > 0 then redis.call('PEXPIRE', MARKS, int(keep / 1000)) end
return there
