-- Makes a dead letter of one that was exported, here or from another store.
--
-- ARGV  1 now or ''   2 who asks   3 task id   4 time of death (µs)   5 actor   6 queue   7 reason   8 fingerprint   9 attempts
--       10 crashes   11 max resurrections   12 payload version   13 created (s)   14 '1' if it is a suspect   15 fence   16 body
--       17 the failure, encoded   18 where its checkpoint is ('', s, f)   19 its bytes or its reference   20 on_dead   21 digest of its job
--       key   22 runs (JSON)   23 how many of its last failures were alike
-- Reply imported · exists (it is a dead letter here) · known (a task of this id waits, runs, or has ended here)
--
-- Accepts an id that nothing is known of, and one that was purged: then somebody wants it back, and no copy of it can run, for its fence
-- is above every one that was presented. It has its job key, unless another task is known to have had that since. A crash before it: nothing happened. After it: it is a dead letter. Repeated, it answers `exists`.
-- include clock
-- include record
-- include stats
-- include letters
-- include result
local function take_job(id, digest, fence)
  local entry = job_entry(digest)
  if digest == '' or (entry and (entry[J_VERSION] > JOB_FORMAT or entry[J_NEWEST] ~= id)) then return end
  redis.call('SET', job_name(digest), cmsgpack.pack({ JOB_FORMAT, id, entry and entry[J_RANK] or fence, true }))
end

local now, who, id, died = now_us(), ARGV[2], ARGV[3], tonumber(ARGV[4])
local rec, newer = load(id)
if newer then return 'known' end
if rec and redis.call('ZSCORE', DLQ, id) then return 'exists' end
local purged = rec and rec[STATE] == 'e' and rec[OUTCOME] == 'discarded' and rec[REASON] == 'purged'
if (rec or remembered(id) or has_result(id)) and not purged then return 'known' end

local runs = cjson.decode(ARGV[22])
local fence = next_fence(now, math.max(tonumber(ARGV[15]), rec and rec[FENCE] or 0))
rec = new_record('d', now, ARGV[6], ARGV[5], tonumber(ARGV[11]), tonumber(ARGV[12]), ARGV[16])
rec[CREATED], rec[FENCE], rec[STICKY], rec[SUSPECT] = tonumber(ARGV[13]), fence, true, ARGV[14] == '1'
rec[ATTEMPT], rec[CRASHES], rec[FINGERPRINT], rec[RESULT] = tonumber(ARGV[9]), tonumber(ARGV[10]), ARGV[8], ARGV[17]
rec[CHECKPOINT], rec[JOB] = ARGV[18] .. ARGV[19], ARGV[21]
rec[RUNS], rec[GRANTED], rec[ALIKE] = #runs > 0 and runs, now, tonumber(ARGV[23])
redis.call('ZREM', END, id)
count(rec, 'accepted')
to_dlq(id, rec, math.min(died, now), ARGV[7], #runs > 0 and runs[#runs][5] or nil)
rec[ON_DEAD] = ARGV[20] -- not before: nobody is told again of a death that was told
take_job(id, rec[JOB], fence)
remember_run(rec, who, now, 'imported')
event(now, 'imported', id, 'by', who)
save(id, rec)
return 'imported'
