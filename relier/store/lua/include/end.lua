-- Remembering ended tasks: late copies find them settled. An id is kept by the shard's age, not by a clock: META `age` is how long
-- sweepers have watched this shard (µs). They count it on their monotonic clocks, so a server whose clock jumps ahead forgets
-- nothing early, and one that is set back keeps nothing for hours.

-- Sweepers add to the age in pieces: at least so much (µs), at most so much; what a longer gap hides is not counted.
local AGE_STEP, AGE_GAP = 5000000, 15000000
local function age() return tonumber(redis.call('HGET', META, 'age') or '0') end

-- When the newest task of a job key has ended, the key's entry is kept as long as that one's id, but for a week (ms) when copies of older
-- tasks may come: they find by it that they are older, also when their own ends are forgotten.
local JOB_KEPT = 604800000
local function leave_job(id, rec, keep)
  local entry = job_entry(rec[JOB])
  if not entry or entry[J_VERSION] > JOB_FORMAT or entry[J_NEWEST] ~= id then return end
  redis.call('PEXPIRE', job_name(rec[JOB]), entry[J_LATE] and JOB_KEPT or int(math.floor(keep / 1000)))
end

-- Ends a task and forgets its body; its id stays for `keep` microseconds, and as long as the age may be behind.
local function remember_end(id, rec, outcome, keep)
  disown(id, rec)
  drop_checkpoint(id, rec)
  if rec[STATE] ~= 'r' then redis.call('ZREM', DUE, id) end
  rec[STATE], rec[OUTCOME], rec[BODY], rec[RESULT], rec[RUNS] = 'e', outcome, '', '', false
  redis.call('ZADD', END, int(age() + keep + AGE_GAP), id)
  leave_job(id, rec, keep)
end

-- Adds the time (µs) that the caller watched since it last saw the age, if nobody else added meanwhile; so no two sweepers count
-- the same time. Returns the age, and whether the caller's time was taken into account.
local function watch(seen, watched)
  local old = age()
  if seen ~= old then return old, true end
  if watched < AGE_STEP then return old, false end
  if redis.call('EXISTS', END) == 0 then return old, true end
  local new = old + math.min(watched, AGE_GAP)
  redis.call('HSET', META, 'age', int(new))
  return new, true
end

-- Forgets at most `limit` ids whose time is over.
local function forget(limit)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', END, '-inf', int(age()), 'LIMIT', 0, limit)) do
    local _, newer = load(id)
    if not newer then redis.call('HDEL', REC, id) end
    redis.call('ZREM', END, id)
  end
end

-- Marks: somebody cancelled a task of which nothing is known. Where its id says, a mark is a record whose outcome is MARKED; in the other shards, where
-- it may come if it has an idempotency key, an id in `end` whose score ends in .5, of which the newest MARKS_KEPT stay. Nobody counted it: there may be
-- no such task, or it has ended and was forgotten. The first copy that comes finds itself settled, and makes an end of it (see meet_mark).
local MARKED = 'marked'
local MARKS_KEPT = 1000
local function is_mark(score) return score and string.sub(score, -2) == '.5' end
local function mark_as_ended(id, now, keep)
  local list = string.sub(REC, 1, -4) .. 'cxl'
  redis.call('ZADD', END, string.format('%.0f.5', age() + keep), id)
  redis.call('ZADD', list, int(now), id)
  redis.call('PEXPIRE', list, int(keep / 1000))
  if redis.call('ZCARD', list) > MARKS_KEPT then
    local oldest = redis.call('ZPOPMIN', list)[1]
    if is_mark(redis.call('ZSCORE', END, oldest)) then redis.call('ZREM', END, oldest) end
  end
end

-- Makes an end of a mark, if there is one: a copy came, so there is such a task, and it is cancelled. Counted once, since from here on it is an ended task
-- like any other. `seen`: the fence in the copy's stamp. A copy of the store's, below the floor, tells nothing new: its task was counted when the store
-- had it. The caller refuses the copy all the same.
local function meet_mark(id, rec, now, seen, queue, actor)
  if seen > 0 and seen <= floor() then return end
  if rec and rec[OUTCOME] ~= MARKED then return end
  if not rec then
    local score = remembered(id)
    if not is_mark(score) then return end
    rec = new_record('e', now, '', '', 0, 0, '')
    redis.call('ZADD', END, int(tonumber(score) + 0.5), id)
  end
  rec[QUEUE], rec[ACTOR], rec[OUTCOME], rec[REASON], rec[STICKY] = queue, actor, 'discarded', 'cancelled', true
  save(id, rec)
  count(rec, 'accepted')
  count_discarded(rec, 'cancelled')
  event(now, 'discarded', id, 'reason', 'cancelled', 'by', 'mark')
end
