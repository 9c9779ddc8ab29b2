-- One task's record: a cmsgpack array in the hash `rec`, so that thousands of them stay small.
--
-- Shard keys, the same for every shard script:
--   KEYS[1] rec   hash  task id -> record          KEYS[2] due   zset  task id -> time of its next publication (µs; see include/due.lua)
--   KEYS[3] meta  hash  floor, clocks and counters  KEYS[4] dead  zset  buried worker id -> time of its burial
--   KEYS[5] ev    stream of what is not ordinary    KEYS[6] dlq   zset  task id -> time of its dead-lettering (see include/letters.lua)
--   KEYS[7] end   zset  id of an ended task -> age of the shard at which it is forgotten (µs; see include/end.lua)
--   KEYS[8] own   zset of the calling worker: task id -> how many snapshots the worker had taken when it asked for the run (R8)
-- Another worker's own set is reached by name: it carries the same hash tag, so it is in the same slot.
--
-- States: s waiting (due) · r running (owned) · h ended, hooks pending (owned, or due once its owner is buried)
--         e ended and remembered (in `end`; an ordinary one without a record, once it is settled) · d dead letter
local REC, DUE, META, DEAD, EV, DLQ, END, OWN = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8]
-- A worker's own set is named by the random end of its id: short, because there is one per worker and shard.
local function own_key(worker) return string.sub(REC, 1, -4) .. 'own:' .. string.match(worker, '[^:]*$') end

local FORMAT = 1
local VERSION, STATE, FENCE, OWNER, NONCE, GRANTED, STICKY, SUSPECT = 1, 2, 3, 4, 5, 6, 7, 8
local ATTEMPT, CRASHES, MAX_CRASHES, PUBS, CREATED, QUEUE, ACTOR = 9, 10, 11, 12, 13, 14, 15
local OUTCOME, REASON, FINGERPRINT, RESULT, RUNS, CHECKPOINT, TASK_KEYS, PAYLOAD_VERSION, BODY = 16, 17, 18, 19, 20, 21, 22, 23, 24
-- DECLINED  how often the task was declined since it last ran or was parked
-- EXEMPT    when (µs) it was last released: purge marks that are older do not concern it; 0: never
-- ON_DEAD   who gets the dead record: queue LF actor LF its payload version LF its max resurrections; '' none      JOB  the digest of its job key; '' none
-- ALIKE     how many of its last failures in a row had its FINGERPRINT; 0: none, or it was released since
local DECLINED, EXEMPT, ON_DEAD, JOB, ALIKE = 25, 26, 27, 28, 29
-- A record of an earlier version ends before these.
local ADDED = { [DECLINED] = 0, [EXEMPT] = 0, [ON_DEAD] = '', [JOB] = '', [ALIKE] = 0 }
-- By name, and absent when they say nothing. An earlier version leaves out what it knows and says nothing, up to ALIKE: fields with higher
-- numbers would be behind a gap, and a record with a gap cannot be read. What has a name it hands on.
--   span     the trace context of its last run, so that the next one can refer to it
--   ready    since when (µs) a waiting task could run, once its copy was published

-- How many finished runs a record remembers; older ones are dropped.
local RUNS_KEPT = 20
-- How many events a shard's stream keeps, about.
local EVENTS_KEPT = 2000

-- Returns the record, or nil. A record of a newer format is left alone: the whole call answers `newer`.
local function load(id)
  local packed = redis.call('HGET', REC, id)
  if not packed then return nil end
  local rec = cmsgpack.unpack(packed)
  if rec[VERSION] > FORMAT then return nil, true end
  for field = #rec + 1, ALIKE do rec[field] = ADDED[field] end
  return rec
end

-- What was added and says nothing is left out: records are many.
local function save(id, rec)
  local last = ALIKE
  while last >= DECLINED and rec[last] == ADDED[last] do
    rec[last] = nil
    last = last - 1
  end
  redis.call('HSET', REC, id, cmsgpack.pack(rec))
  for field = last + 1, ALIKE do rec[field] = ADDED[field] end
end

local function new_record(state, now, queue, actor, max_crashes, payload_version, body)
  return { FORMAT, state, 0, '', '', 0, false, false, 0, 0, max_crashes, 0, math.floor(now / 1000000), queue, actor,
           '', '', '', '', false, '', '', payload_version, body, 0, 0, '', '', 0 }
end

-- The entry of a job key, by its digest; see include/job.lua.
local JOB_FORMAT = 1
local J_VERSION, J_NEWEST, J_RANK, J_LATE = 1, 2, 3, 4
local function job_name(digest) return string.sub(REC, 1, -4) .. 'job:' .. digest end
local function job_entry(digest)
  local packed = digest ~= '' and redis.call('GET', job_name(digest))
  return packed and cmsgpack.unpack(packed)
end

-- The reason of a task whose producer publishes its first copy by itself, after the store has custody: a first-hand copy, or one of the store.
local PUSHED = 'pushed'
-- Whether the copy with this fence is the one that a waiting task waits for.
local function is_current(rec, seen) return seen == rec[FENCE] or (seen == 0 and rec[REASON] == PUSHED) end

-- Whether the task has ended and its id is kept, be it with a record or without.
local function remembered(id) return redis.call('ZSCORE', END, id) end

local function event(now, kind, id, ...)
  redis.call('XADD', EV, 'MAXLEN', '~', EVENTS_KEPT, '*', 'at', int(now), 'event', kind, 'task', id, ...)
end

local function buried(worker) return redis.call('ZSCORE', DEAD, worker) end

-- R3: a fence is above every fence this shard has seen, and close to the time.
local function floor() return tonumber(redis.call('HGET', META, 'floor') or '0') end
local function next_fence(now, seen)
  local fence = math.max(floor() + 1, now, (seen or 0) + 1)
  redis.call('HSET', META, 'floor', int(fence))
  return fence
end

-- Due at once is below every clock, and ahead of all that waited for its time: recovery comes first.
local AT_ONCE = 0
local function set_due(id, at) redis.call('ZADD', DUE, int(at), id) end
local function disown(id, rec)
  if rec[OWNER] ~= '' then redis.call('ZREM', own_key(rec[OWNER]), id) end
  rec[OWNER] = ''
end

-- What somebody asked for while the task ran: to end instead of running again, and for which reason. It is the REASON of a record that is
-- `running`, or was put back since. A run that completes all the same has completed; any other end of it is this one, and a record that was put
-- back is ended by whoever looks at it next: the sweep (due), or a claim. tests/model/cancelling.py shows what each step is good for.
local CANCEL_ASKED = 'cancel asked'
local ENDS_AS = { [CANCEL_ASKED] = 'cancelled' }
local function asked_to_end(rec) return (rec[STATE] == 'r' or rec[STATE] == 's') and ENDS_AS[rec[REASON]] end

-- Checkpoints. CHECKPOINT says where a task's is: '' nowhere · s and its bytes · k and its size: in a key of its own, so that the record stays
-- small · f and what names its file and its bytes (see relier/checkpoint_files.py). It goes when the task has ended well.
local function checkpoint_key(id) return string.sub(REC, 1, -4) .. 'cp:' .. id end
local function drop_checkpoint(id, rec)
  if string.sub(rec[CHECKPOINT], 1, 1) == 'k' then redis.call('DEL', checkpoint_key(id)) end
  rec[CHECKPOINT] = ''
end

-- Adds a finished run to the record's history: {worker, start, end, outcome, detail}.
local function remember_run(rec, worker, now, outcome, detail)
  local runs = rec[RUNS] or {}
  runs[#runs + 1] = { worker, rec[GRANTED], now, outcome, detail or '' }
  if #runs > RUNS_KEPT then table.remove(runs, 1) end
  rec[RUNS] = runs
end

-- Puts the task back: waiting, due at once or later, under a fence that its last run does not hold.
local function put_back(id, rec, now, due)
  disown(id, rec)
  rec[STATE], rec[FENCE], rec[NONCE], rec[STICKY], rec[PUBS], rec.ready = 's', next_fence(now, rec[FENCE]), '', true, 0, nil
  set_due(id, due)
end

-- What a run may expect that the record does not know, after the store lost data; nil while the record decides.
--   lost     the run's fence is higher than the record's, or than every fence of the shard: the caller adopts its run and repeats
--   unknown  no record, but the shard has gone on since: another copy may have run and be forgotten, so the caller gives its copy
--            back, and never acknowledges it
local function astray(id, rec, newer, caller, fence)
  if newer or buried(caller) or (not rec and remembered(id)) then return nil end
  if not rec then return fence > floor() and 'lost' or 'unknown' end
  if rec[FENCE] < fence and rec[STATE] ~= 'e' and rec[STATE] ~= 'h' then return 'lost' end
  return nil
end
