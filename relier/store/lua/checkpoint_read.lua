#!lua flags=no-writes
-- Reads a checkpoint that has a key of its own.
--
-- ARGV  1 now or ''   2 task id
-- Reply its bytes, or nil
-- include clock
-- include record
return redis.call('GET', checkpoint_key(ARGV[2]))
