#!lua flags=allow-oom
-- Acknowledges finished messages and takes new ones, in one call: a consumer needs no other while all is well.
--
-- KEYS  1 <ns>:<queue> list of message ids   2 <ns>:<queue>.msgs hash message id -> message
--       3 <ns>:__acks__.<broker id>.<queue> set of message ids   4 <ns>:__relier_gone__ zset of dead broker ids
-- ARGV  1 broker id   2 how many messages at most   3… ids to acknowledge
-- Reply {removed, taken}: for each acknowledged id 1 if this call removed the copy (only then no other copy of this delivery can
--       come), and a flat list of message id and message, or false when this broker id was declared dead (a zombie takes nothing)
--
-- A crash after it: what was taken is in the set, and comes back when the worker is buried. A lost reply: the acknowledgements are
-- repeated and count as not removed; what was taken is reclaimed.
local removed, taken = {}, {}
for i = 3, #ARGV do
  removed[#removed + 1] = redis.call('SREM', KEYS[3], ARGV[i]) == 1 and redis.call('HDEL', KEYS[2], ARGV[i]) or 0
end
if redis.call('ZSCORE', KEYS[4], ARGV[1]) then return { removed, false } end
local ids = ARGV[2] ~= '0' and redis.call('LPOP', KEYS[1], ARGV[2]) or {}
for _, id in ipairs(ids) do
  local message = redis.call('HGET', KEYS[2], id)
  if message then
    redis.call('SADD', KEYS[3], id)
    taken[#taken + 1] = id
    taken[#taken + 1] = message
  end
end
return { removed, taken }
