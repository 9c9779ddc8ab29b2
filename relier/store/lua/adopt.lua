#!lua flags=allow-oom
-- Gives a living worker back a run that the store lost, after a rollback or a wipe (R8).
--
-- ARGV  1 now or ''   2 worker   3 task id   4 fence   5 max resurrections   6 queue   7 actor   8 payload version
--       9 how many snapshots the worker has taken   10 body   11 the task's protections, as in its claim
-- Reply adopted · refused
--
-- With a job key it has to ask for that first, if the record went with the data: a newer task may have it by now.
-- Accepts no record, or a record under a lower fence: the run's fence proves that it came later. Refused for a buried worker.
-- A crash before it: the next beat repeats it. After it: a run like any other.
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
-- include job
local now = now_us()
-- How long (µs) the id of a run is remembered that has to give way.
local KEPT = 86400000000
local worker, id, fence = ARGV[2], ARGV[3], tonumber(ARGV[4])
local rec, newer = load(id)
if rec and rec[STATE] == 'r' and rec[FENCE] == fence and rec[OWNER] == worker then return 'adopted' end
if astray(id, rec, newer, worker, fence) ~= 'lost' then return 'refused' end
if not rec then
  rec = new_record('r', now, ARGV[6], ARGV[7], tonumber(ARGV[5]), tonumber(ARGV[8]), ARGV[10])
  count(rec, 'accepted')
end
if rec[STATE] == 'd' then
  leave_dlq(id, rec)
  rec[OUTCOME] = ''
end
local protections = ARGV[11] ~= '' and cjson.decode(ARGV[11]) or {}
local key, job = protections.key, protections.job
rec[ON_DEAD] = protections.dead and not is_notice(id) and protections.dead or ''
if key then keys().ask(id, rec, key, now) end -- It runs, whatever the answer is.
if job and rec[JOB] == '' and not jobs().join(id, rec, job, now, KEPT) then return 'refused' end
disown(id, rec)
rec[STATE], rec[FENCE], rec[OWNER], rec[GRANTED], rec[STICKY], rec[BODY] = 'r', fence, worker, now, true, ARGV[10]
if fence > floor() then redis.call('HSET', META, 'floor', int(fence)) end
redis.call('ZREM', DUE, id)
redis.call('ZADD', OWN, ARGV[9], id)
save(id, rec)
count(rec, 'adopted')
event(now, 'adopted', id, 'worker', worker, 'fence', int(fence))
return 'adopted'
