#!lua flags=allow-oom
-- Buries a dead worker in this shard: it joins the dead set and what it owned becomes due, in one step (R6).
--
-- ARGV  1 now or ''   2 the dead worker   3 'crash', or 'left' for a worker that stopped in order   4 how many tasks at most
-- Reply {tasks put back, dead-lettered, still owned (without records of a newer format, which stay as they are),
--        id, actor, queue and crashes of each that was dead-lettered}
--
-- Accepts any worker at any time; repeated, it goes on where it stopped. A crash before it: the obligation stays and is resumed.
-- A crash after it: claim refuses the dead worker here and takes over what it still owns.
-- include clock
-- include record
-- include stats
-- include letters
-- include due_time
-- include end
-- include result
-- include settle
-- include idempotency
-- include crash
local now = now_us()
local worker, how, limit = ARGV[2], ARGV[3], tonumber(ARGV[4])
-- How long a buried worker is remembered: longer than any zombie sleeps (one day, in µs).
local BURIED_KEPT = 86400000000
-- How many crashes a task's hooks survive, besides those that its runs may.
local HOOK_CRASHES = 5
local owned = own_key(worker)
redis.call('ZADD', DEAD, 'NX', int(now), worker)
redis.call('ZREMRANGEBYSCORE', DEAD, '-inf', '(' .. int(now - BURIED_KEPT))

local function put_back_run(id, rec)
  if how == 'left' then
    remember_run(rec, worker, now, 'handed over')
    count(rec, 'handed_over')
  elseif crashed(id, rec, now) then
    return 1
  else
    count(rec, 'resurrections')
  end
  put_back(id, rec, now, AT_ONCE)
  return 0
end

-- Hooks that kill their process as often as a run may are given up: they would be replayed, and kill, for ever.
local function bury_hooks(id, rec)
  disown(id, rec)
  rec[FENCE], rec[STICKY], rec[NONCE], rec[PUBS] = next_fence(now, rec[FENCE]), true, '', 0
  if how == 'crash' then rec[CRASHES] = rec[CRASHES] + 1 end
  if rec[CRASHES] <= rec[MAX_CRASHES] + HOOK_CRASHES then
    set_due(id, AT_ONCE)
    return
  end
  count(rec, 'hooks_abandoned')
  event(now, 'hooks abandoned', id, 'worker', worker)
  if rec[OUTCOME] == 'dead' then
    rec[STATE] = 'd'
  else
    remember_end(id, rec, rec[OUTCOME], 86400000000)
  end
end

local back, dead, left_alone, letters = 0, 0, 0, {}
for _, id in ipairs(redis.call('ZRANGE', owned, 0, limit - 1)) do
  local rec, newer = load(id)
  if newer then left_alone = left_alone + 1 else redis.call('ZREM', owned, id) end
  if rec and rec[OWNER] == worker then
    if rec[STATE] == 'r' then
      local died = put_back_run(id, rec)
      dead = dead + died
      if died == 1 then
        for _, told in ipairs({ id, rec[ACTOR], rec[QUEUE], int(rec[CRASHES]) }) do letters[#letters + 1] = told end
      end
    elseif rec[STATE] == 'h' then
      bury_hooks(id, rec)
    end
    save(id, rec)
    back = back + 1
  end
end
return { back - dead, dead, redis.call('ZCARD', owned) - left_alone, letters }
