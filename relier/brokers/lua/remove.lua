#!lua flags=allow-oom
-- Removes messages from a queue on request: their tasks have ended. The others keep their places.
--
-- KEYS  1 queue   2 msgs
-- ARGV  1 how far from its head the queue is searched; 0: not at all, then ids stay in it and whoever fetches drops them
--       2… message ids of one page of the queue, in order, each with '1' if it is to go
-- Reply {how many messages were removed, where the page begins in the queue now (-1: unknown), how many of it are left}
--
-- A message that somebody fetched meanwhile loses its body here, and nothing is left to be returned to the queue when its holder ends.
-- A crash before it: nothing happened. After it: gone. Repeated, it finds nothing.
local removed, far = 0, tonumber(ARGV[1])
for i = 2, #ARGV, 2 do
  if ARGV[i + 1] == '1' then removed = removed + redis.call('HDEL', KEYS[2], ARGV[i]) end
end
-- Workers take from the head: where the last one is, those before it are, as far as they are there.
local last = far > 0 and redis.call('LPOS', KEYS[1], ARGV[#ARGV - 1], 'MAXLEN', far)
if not last then return { removed, -1, 0 } end

-- One pass over the queue for the whole page: what goes is made equal first.
local NOTHING, at, gone, left = '', last, 0, 0
for i = #ARGV - 1, 2, -2 do
  if at < 0 or redis.call('LINDEX', KEYS[1], at) ~= ARGV[i] then break end
  if ARGV[i + 1] == '1' then
    redis.call('LSET', KEYS[1], at, NOTHING)
    gone = gone + 1
  else
    left = left + 1
  end
  at = at - 1
end
if gone > 0 then redis.call('LREM', KEYS[1], gone, NOTHING) end
return { removed, at + 1, left }
