#!lua flags=no-writes
-- Tells how much there is in a shard, for metrics: however full it is, this looks at no more than 100 records and 100 lots.
--
-- ARGV  1 now or ''
-- Reply {records, waiting (in the due index), due now, µs that the oldest of those has waited since its time came (0: none is due),
--        dead letters, flat list of: queue LF actor LF reason, letters; flat list of: lot, tasks parked in it}
--
-- What is due at once has no time of its own: it has waited since it was put back, which its fence tells. Records of a newer format are left out.
-- include clock
-- include record
-- include lots
local now, LOOKED_AT = now_us(), 100
local at = now + tonumber(redis.call('HGET', META, 'skew') or '0') -- see include/due_time.lua

local function longest_due()
  local found, first = redis.call('ZRANGEBYSCORE', DUE, '-inf', int(at), 'WITHSCORES', 'LIMIT', 0, LOOKED_AT), now
  for i = 1, #found, 2 do
    local time = tonumber(found[i + 1])
    if time > AT_ONCE then return math.max(now - first, at - time) end
    local rec = load(found[i])
    if rec then first = math.min(first, rec[FENCE]) end
  end
  return now - first
end

local parked = {}
for _, lot in ipairs(redis.call('SMEMBERS', lots())) do
  if #parked >= 2 * LOOKED_AT then break end
  local n = #parked
  parked[n + 1], parked[n + 2] = lot, redis.call('ZCARD', lot_key(lot))
end

return { redis.call('HLEN', REC), redis.call('ZCARD', DUE), redis.call('ZCOUNT', DUE, '-inf', int(at)), int(longest_due()),
         redis.call('ZCARD', DLQ), redis.call('HGETALL', string.sub(REC, 1, -4) .. 'letters:by'), parked }
