#!lua flags=allow-oom
-- Takes messages from the head of a queue into the unacknowledged set of one broker id.
--
-- KEYS  1 queue   2 msgs   3 <ns>:__acks__.<broker id>.<queue> set of message ids   4 <ns>:__relier_gone__ zset of dead broker ids
-- ARGV  1 broker id   2 how many at most
-- Reply flat list of message id and message, or false when this broker id was declared dead (a zombie takes nothing)
--
-- A crash after it: the ids are in the set, and come back when the worker is buried. A lost reply: reclaim.
if redis.call('ZSCORE', KEYS[4], ARGV[1]) then return false end
local ids = redis.call('LPOP', KEYS[1], ARGV[2])
local out = {}
for _, id in ipairs(ids or {}) do
  local message = redis.call('HGET', KEYS[2], id)
  if message then
    redis.call('SADD', KEYS[3], id)
    out[#out + 1] = id
    out[#out + 1] = message
  end
end
return out
