#!lua flags=allow-oom
-- One heartbeat of a worker process, however many tasks it runs. It also tells the worker which queues and actors are held.
--
-- ARGV  1 now or ''   2 worker   3 version of the holds that it knows ('' for none)
-- Reply {ok · gone (stop: you were declared dead) · unknown (register again: the store lost you),
--        flat list of all holds when they are others than those the worker knows, else false}
-- include fleet
local function changed()
  return (redis.call('HGET', HOLDS, 'version') or '') ~= ARGV[3] and redis.call('HGETALL', HOLDS)
end
if redis.call('ZSCORE', GONE, ARGV[2]) then return { 'gone', changed() } end
if redis.call('HEXISTS', WORKERS, ARGV[2]) == 0 then return { 'unknown', changed() } end
redis.call('HINCRBY', BEATS, ARGV[2], 1)
return { 'ok', changed() }
