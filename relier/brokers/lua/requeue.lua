#!lua flags=allow-oom
-- Puts messages that this broker id holds back to the head of their queue, in order.
--
-- KEYS  1 queue   2 msgs   3 unacknowledged set
-- ARGV  message ids
-- Reply how many
-- include put_back
local back = 0
for i = #ARGV, 1, -1 do
  if redis.call('SREM', KEYS[3], ARGV[i]) == 1 then back = back + put_back(KEYS[1], KEYS[2], ARGV[i]) end
end
return back
