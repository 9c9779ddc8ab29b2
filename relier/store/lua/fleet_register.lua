-- Makes a worker known, before it consumes anything.
--
-- ARGV  1 now or ''   2 worker   3 what it tells about itself (JSON)
-- Reply ok · gone (this identity was declared dead; come back under a new one)
--
-- A crash after it: the worker never beats and is declared dead like any other.
-- include clock
-- include fleet
if redis.call('ZSCORE', GONE, ARGV[2]) then return 'gone' end
redis.call('HSET', WORKERS, ARGV[2], ARGV[3])
redis.call('HSETNX', BEATS, ARGV[2], '0')
return 'ok'
