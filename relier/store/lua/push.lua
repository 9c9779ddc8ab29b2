-- Takes custody of a task with a job key, before its message is published, and ends the older task under the key.
--
-- ARGV  1 now or ''   2 task id   3 the key's digest   4 delay (µs) after which a sweeper publishes it
--       5 '1' if the caller publishes a copy by itself as well   6 '1' if a follow-up   7 max resurrections   8 queue   9 actor
--       10 payload version   11 body   12 ON_DEAD   13 retention (µs)   14 '1' if a dead letter under the key refuses this push
--       15 '1' if an older one that runs is to be cancelled, else it may finish, without a commit
-- Reply {'taken', rank, the older task that was superseded or '', the worker that runs it or ''} · {'known', rank}: it was taken before ·
--       {'refused', the dead letter, its reason} · {'newer'} (a newer format has the key)
--
-- Accepts only an id without record, so that a repetition, or a replayed follow-up, ends nobody; of one that is still on its way it only moves
-- the time. A crash before it: the push did not return. After it: the older task has ended, and the record is due, whoever publishes.
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
local id, digest, keep = ARGV[2], ARGV[3], tonumber(ARGV[13])
local entry = job_entry(digest)
if entry and entry[J_VERSION] > JOB_FORMAT then return { 'newer' } end

local rec, newer = load(id)
if rec or newer or remembered(id) then
  if rec and rec[STATE] == 's' and rec[REASON] == PUSHED then set_due(id, due_time(now) + tonumber(ARGV[4])) end
  return { 'known', int(entry and entry[J_NEWEST] == id and entry[J_RANK] or 0) }
end

local older, theirs
if entry then older, theirs = load(entry[J_NEWEST]) end
if theirs then return { 'newer' } end
if older and older[OUTCOME] == 'dead' and ARGV[14] == '1' then return { 'refused', entry[J_NEWEST], older[REASON] } end

local rank = next_fence(now, entry and entry[J_RANK])
local superseded, owner = jobs().give_to(id, digest, rank, false, now, keep, ARGV[15] == '1')
rec = new_record('s', now, ARGV[8], ARGV[9], tonumber(ARGV[7]), tonumber(ARGV[10]), ARGV[11])
rec[FENCE], rec[STICKY], rec[JOB], rec[ON_DEAD] = next_fence(now), ARGV[6] == '1', digest, ARGV[12]
if ARGV[5] == '1' then rec[REASON] = PUSHED end
save(id, rec)
set_due(id, due_time(now) + tonumber(ARGV[4]))
count(rec, 'accepted')
return { 'taken', int(rank), superseded, owner }
