#!lua flags=allow-oom
-- Appends a copy that the store publishes: recovery goes on when memory is short.
--
-- KEYS  1 <ns>:<queue> list of message ids   2 <ns>:<queue>.msgs hash message id -> message
-- ARGV  1 message id   2 message
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
return redis.call('RPUSH', KEYS[1], ARGV[1])
