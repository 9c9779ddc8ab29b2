-- Records the format version and the number of shards at the first start, and tells them ever after.
--
-- ARGV  1 now or ''   2 format   3 shards
-- Reply {format, shards}
-- include clock
-- include fleet
redis.call('HSETNX', META, 'format', ARGV[2])
redis.call('HSETNX', META, 'shards', ARGV[3])
return { redis.call('HGET', META, 'format'), redis.call('HGET', META, 'shards') }
