#!lua flags=allow-oom
-- Puts back what this broker id took according to Redis but does not hold: the reply of a fetch was lost, or an
-- acknowledgement was undone by a restart of Redis.
--
-- KEYS  1 queue   2 msgs   3 unacknowledged set
-- ARGV  ids that the worker does hold
-- Reply how many were put back
-- include put_back
local held = {}
for i = 1, #ARGV do held[ARGV[i]] = true end
local back = 0
for _, id in ipairs(redis.call('SMEMBERS', KEYS[3])) do
  if not held[id] then
    redis.call('SREM', KEYS[3], id)
    back = back + put_back(KEYS[1], KEYS[2], id)
  end
end
return back
