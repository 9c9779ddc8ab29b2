#!lua flags=allow-oom
-- Counts the members of a group that are done: members, not decrements, so that a replay counts once (R7).
--
-- KEYS  1 grp:<group id>   hash: '' -> size, member id -> 1
-- ARGV  1 now or ''   2 member id, or '' to create the group   3 size (create only)   4 time to live (ms)
-- Reply {members done, size}; size -1 if the group is not known
--
-- The member that makes it complete publishes the callbacks under derived ids. So does every replay of it, which changes nothing.
if ARGV[2] == '' then
  redis.call('HSETNX', KEYS[1], '', ARGV[3])
else
  if redis.call('HEXISTS', KEYS[1], '') == 0 then return { 0, -1 } end
  redis.call('HSET', KEYS[1], ARGV[2], '1')
end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return { redis.call('HLEN', KEYS[1]) - 1, tonumber(redis.call('HGET', KEYS[1], '')) }
