#!lua flags=allow-oom
-- Returns a dead broker id's unacknowledged messages to the head of one queue, and refuses its fetches from now on.
--
-- KEYS  1 queue   2 msgs   3 its unacknowledged set   4 <ns>:__relier_gone__
-- ARGV  1 broker id   2 now (s)   3 how many at most   4 how long (s) a dead broker id is refused
-- Reply how many are left
--
-- A crash after it: repeated by whoever resumes the obligation; what was returned is not there again.
-- include put_back
redis.call('ZADD', KEYS[4], 'NX', ARGV[2], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', '(' .. (ARGV[2] - ARGV[4]))
for _, id in ipairs(redis.call('SPOP', KEYS[3], ARGV[3])) do
  put_back(KEYS[1], KEYS[2], id)
end
return redis.call('SCARD', KEYS[3])
