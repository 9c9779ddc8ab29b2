#!lua flags=allow-oom
-- One pulse of a worker process, sent by its child process: the system lets the worker run, though its interpreter may be held.
--
-- ARGV  1 now or ''   2 worker
-- Reply status ok · unknown (no such worker: it has not registered, or was declared dead; nothing was written)
--
-- Accepts living workers only, so that nothing is left of a dead one. It decides nothing: observers judge by beats and pulses. Repeated
-- or lost, it is one pulse more or less.
-- include fleet
if redis.call('HEXISTS', WORKERS, ARGV[2]) == 0 then return redis.status_reply('unknown') end
redis.call('HINCRBY', PULSES, ARGV[2], 1)
return redis.status_reply('ok')
