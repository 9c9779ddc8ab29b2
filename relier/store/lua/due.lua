#!lua flags=allow-oom
-- Lists what is due for publication, and forgets ended tasks whose retention is over. It changes no living record: the caller
-- publishes each copy through the broker and then marks it. A crash in between leaves the record due, and it is published again;
-- the extra copy is refused at its claim. Beside that it goes on with what others began: tasks that wait for an idempotency key are
-- let go, at most 100, and those are looked at whose own time has come (see include/idempotency.lua). What was put back and had been asked to
-- end is ended.
--
-- ARGV  1 now or ''   2 how many at most   3 how many body bytes at most   4 the shard's age as the caller last saw it ('' never)
--       5 how long (µs, its monotonic clock) it has watched since
-- Reply {records due in all (one more if keys are left to be looked at), flat list of: task id, fence, state, suspect
--       (0, 1; 2: its next crash is its last), crashes, times published, queue, actor, payload version, body; age, 1 if the caller's time was taken into account (else it goes on counting)}
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
-- include purging
local function suspicion(rec) return rec[SUSPECT] and (rec[CRASHES] >= rec[MAX_CRASHES] and 2 or 1) or 0 end

local limit, room = tonumber(ARGV[2]), tonumber(ARGV[3])
local old, counted = watch(tonumber(ARGV[4]) or -1, tonumber(ARGV[5]))
forget(limit)
local now = now_us()
drop_void_marks(now)
local more = look_at_keys(now, 100) and 1 or 0
if redis.call('EXISTS', DUE) == 0 then
  redis.call('HDEL', META, 'seen', 'skew')
  return { more, {}, int(old), counted and 1 or 0 }
end

local at, out = due_time(now), {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', DUE, '-inf', int(at), 'LIMIT', 0, limit)) do
  local rec, newer = load(id)
  if newer then
    set_due(id, at + 60000000)
  elseif not rec or rec[STATE] == 'd' or rec[STATE] == 'r' or rec[STATE] == 'e' then
    if rec and rec[STATE] == 'e' then redis.call('HDEL', REC, id) end -- an earlier version kept ended tasks here
    redis.call('ZREM', DUE, id)
  elseif asked_to_end(rec) then
    end_as_asked(id, rec, now, ENDED_KEPT, 'sweep')
    save(id, rec)
  elseif not (awaits_key(rec) and keys().look_at_waiter(id, rec, now)) then
    room = room - #rec[BODY]
    if room < 0 and #out > 0 then break end
    local n = #out
    out[n + 1], out[n + 2], out[n + 3], out[n + 4] = id, int(rec[FENCE]), rec[STATE], suspicion(rec)
    out[n + 5], out[n + 6], out[n + 7], out[n + 8] = rec[CRASHES], rec[PUBS], rec[QUEUE], rec[ACTOR]
    out[n + 9], out[n + 10] = rec[PAYLOAD_VERSION], rec[BODY]
  end
end
return { redis.call('ZCOUNT', DUE, '-inf', int(at)) + more, out, int(old), counted and 1 or 0 }
