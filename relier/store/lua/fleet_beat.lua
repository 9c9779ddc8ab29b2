#!lua flags=allow-oom
-- One heartbeat of a worker process, however many tasks it runs. It also tells the worker which queues and actors are held.
--
-- ARGV  1 now or ''   2 worker   3 version of the holds that it knows ('' for none)
--       4 what runs in it: a JSON list of [queue, actor, runs, seconds that the longest has run], or '' when it is idle
-- Reply {ok · gone (stop: you were declared dead) · unknown (register again: the store lost you),
--        flat list of all holds when they are others than those the worker knows, else false}
-- include fleet
local function changed()
  return (redis.call('HGET', HOLDS, 'version') or '') ~= ARGV[3] and redis.call('HGETALL', HOLDS)
end
if redis.call('ZSCORE', GONE, ARGV[2]) then return { 'gone', changed() } end
if redis.call('HEXISTS', WORKERS, ARGV[2]) == 0 then return { 'unknown', changed() } end
redis.call('HINCRBY', BEATS, ARGV[2], 1)
if ARGV[4] == '' then redis.call('HDEL', BUSY, ARGV[2]) else redis.call('HSET', BUSY, ARGV[2], ARGV[4]) end
return { 'ok', changed() }
