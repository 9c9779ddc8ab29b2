-- Takes custody of a task that is to be published later (a delay, or an enqueue that the broker refused).
--
-- ARGV  1 now or ''   2 task id   3 delay (µs)   4 '1' if a follow-up   5 max resurrections   6 queue   7 actor
--       8 payload version   9 body   10 who is told when it is dead (see include/record.lua)
--       11 '1' if somebody released it: then purge marks that were set before do not concern it
-- Reply scheduled · exists
--
-- Accepts only an id without record, so that a replayed follow-up is scheduled once. A crash before it: the producer's call did
-- not return. A crash after it: the record is due and any sweeper publishes it.
-- include clock
-- include record
-- include stats
-- include due_time
local now = now_us()
local id = ARGV[2]
if redis.call('HEXISTS', REC, id) == 1 or remembered(id) then return 'exists' end
local rec = new_record('s', now, ARGV[6], ARGV[7], tonumber(ARGV[5]), tonumber(ARGV[8]), ARGV[9])
rec[FENCE], rec[STICKY], rec[ON_DEAD] = next_fence(now), ARGV[4] == '1', ARGV[10]
if ARGV[11] == '1' then rec[EXEMPT] = now end
save(id, rec)
set_due(id, due_time(now) + tonumber(ARGV[3]))
count(rec, 'accepted')
return 'scheduled'
