-- Purge marks: a task that was enqueued before the mark which concerns it never runs, wherever its copies come from. It ends as
-- discarded, with the reason `purged`.
--   marks  hash: whom it concerns -> {format, its time (µs), when it was written (µs), who set it}, packed. There only while there are marks.
--          `*` every task · `q LF queue` · `a LF actor` · `b LF queue LF actor` who is both
--
-- A mark's time is ahead of the moment at which it was written, so that what was enqueued before that is older whatever is missing in
-- the exactness of its stamp; its command goes on until that time has passed, so that what is enqueued afterwards is not older.
-- tests/model/purge.py searches for what happens without each of these rules.
local MARKS = string.sub(REC, 1, -4) .. 'marks'
local MARK_FORMAT = 1
local M_VERSION, M_AT, M_WRITTEN = 1, 2, 3
-- What is set back by less (µs) is no reason to doubt a mark: clocks are adjusted all the time.
local CLOCK_STEP = 100000

local function mark_names(queue, actor)
  return { '*', 'q\n' .. queue, 'a\n' .. actor, 'b\n' .. queue .. '\n' .. actor }
end

-- Whether a task is older than a mark. `created`: when it was enqueued (µs), as far as its copy says; 0: unknown. It has no record from
-- before it was enqueued; a record's time is in whole seconds, and so are marks. A release exempts from the marks there are.
local function is_older(rec, created, at, written)
  local enqueued = rec[CREATED] * 1000000
  if created > 0 then enqueued = math.min(enqueued, created) end
  return rec[EXEMPT] < written and math.max(enqueued, rec[EXEMPT]) < at
end

-- Whether a mark says that the task is not to run. Asks for nothing else while there is no mark.
local function is_purged(rec, now, created)
  if redis.call('EXISTS', MARKS) == 0 then return false end
  for _, packed in ipairs(redis.call('HMGET', MARKS, unpack(mark_names(rec[QUEUE], rec[ACTOR])))) do
    local mark = packed and cmsgpack.unpack(packed)
    if mark and mark[M_VERSION] <= MARK_FORMAT and now >= mark[M_WRITTEN] - CLOCK_STEP
      and is_older(rec, created, mark[M_AT], mark[M_WRITTEN]) then
      return true
    end
  end
  return false
end

-- Returns whether a purge of those names (JSON) concerns a record.
local function concerns(names)
  local concerned = {}
  for _, name in ipairs(cjson.decode(names)) do concerned[name] = true end
  return function(rec)
    for _, name in ipairs(mark_names(rec[QUEUE], rec[ACTOR])) do
      if concerned[name] then return true end
    end
    return false
  end
end

-- Drops the marks that were written later than now: the server's clock was set back, and what is enqueued from now on would look older.
local function drop_void_marks(now)
  if redis.call('EXISTS', MARKS) == 0 then return end
  local marks = redis.call('HGETALL', MARKS)
  for i = 1, #marks, 2 do
    local mark = cmsgpack.unpack(marks[i + 1])
    if mark[M_VERSION] <= MARK_FORMAT and now < mark[M_WRITTEN] - CLOCK_STEP then
      redis.call('HDEL', MARKS, marks[i])
      event(now, 'purge mark void', '', 'concerns', marks[i])
    end
  end
end
