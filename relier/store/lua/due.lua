#!lua flags=allow-oom
-- Lists what is due for publication, and forgets ended tasks whose retention is over. It changes no living record: the caller
-- publishes each copy through the broker and then marks it. A crash in between leaves the record due, and it is published again;
-- the extra copy is refused at its claim.
--
-- ARGV  1 now or ''   2 how many at most   3 how many body bytes at most
-- Reply {records due in all, flat list of: task id, fence, state, suspect (0, 1; 2: its next crash is its last), crashes,
--       times published, queue, actor, body}
-- include clock
-- include record
local function suspicion(rec) return rec[SUSPECT] and (rec[CRASHES] >= rec[MAX_CRASHES] and 2 or 1) or 0 end

local now, limit, room = now_us(), tonumber(ARGV[2]), tonumber(ARGV[3])
local out = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', DUE, '-inf', int(now), 'LIMIT', 0, limit)) do
  local rec, newer = load(id)
  if newer then
    set_due(id, now + 60000000)
  elseif not rec or rec[STATE] == 'd' or rec[STATE] == 'r' then
    redis.call('ZREM', DUE, id)
  elseif rec[STATE] == 'e' then
    redis.call('HDEL', REC, id)
    redis.call('ZREM', DUE, id)
  else
    room = room - #rec[BODY]
    if room < 0 and #out > 0 then break end
    local n = #out
    out[n + 1], out[n + 2], out[n + 3], out[n + 4] = id, int(rec[FENCE]), rec[STATE], suspicion(rec)
    out[n + 5], out[n + 6], out[n + 7], out[n + 8] = rec[CRASHES], rec[PUBS], rec[QUEUE], rec[ACTOR]
    out[n + 9] = rec[BODY]
  end
end
return { redis.call('ZCOUNT', DUE, '-inf', int(now)), out }
