#!lua flags=allow-oom
-- Removes a message for good, if this broker id still holds it.
--
-- KEYS  1 msgs   2 unacknowledged set
-- ARGV  1 message id
-- Reply 1 if the copy was removed by this call: only then no other copy of this delivery can come
if redis.call('SREM', KEYS[2], ARGV[1]) == 0 then return 0 end
return redis.call('HDEL', KEYS[1], ARGV[1])
