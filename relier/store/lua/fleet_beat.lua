#!lua flags=allow-oom
-- One heartbeat of a worker process, however many tasks it runs.
--
-- ARGV  1 now or ''   2 worker
-- Reply ok · gone (stop: you were declared dead) · unknown (register again: the store lost you)
-- include fleet
if redis.call('ZSCORE', GONE, ARGV[2]) then return 'gone' end
if redis.call('HEXISTS', WORKERS, ARGV[2]) == 0 then return 'unknown' end
redis.call('HINCRBY', BEATS, ARGV[2], 1)
return 'ok'
