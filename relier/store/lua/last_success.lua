#!lua flags=no-writes
-- Tells when a task of an actor completed last in this shard.
--
-- ARGV  1 now or ''   2 actor   3 the code that it is asked of
-- Reply time in µs; 0: never, as far as is known
-- include clock
-- include record
-- include success
return last_success(ARGV[2], ARGV[3])
