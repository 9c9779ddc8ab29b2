#!lua flags=allow-oom
-- Discards dead letters of one shard that are older than they are to be kept: RELIER_DLQ_RETENTION.
--
-- ARGV  1 now or ''   2 how long (µs) a letter is kept   3 how long (µs) its id is remembered   4 how many at most
-- Reply how many were discarded
--
-- Accepts `dead` only, oldest first; a letter whose hooks are still to run, or of a newer format, stays for a later call. A crash before it:
-- they are dead letters. After it: each has ended as `discarded: expired` and is counted, once. Repeated, it goes on with the next ones.
-- A released letter is none any more, and one that died again is young: its time is that of its last death.
-- include clock
-- include record
-- include stats
-- include letters
-- include due_time
-- include end
-- include result
-- include settle
-- include idempotency
-- include lots
-- include discarding
local now, keep = now_us(), tonumber(ARGV[3])
local discarded = 0
for _, id in ipairs(redis.call('ZRANGEBYSCORE', DLQ, '-inf', int(now - tonumber(ARGV[2])), 'LIMIT', 0, ARGV[4])) do
  local rec = load(id)
  if rec and rec[STATE] == 'd' then
    discard_task(id, rec, now, keep, 'expired', 'retention')
    save(id, rec)
    discarded = discarded + 1
  end
end
return discarded
