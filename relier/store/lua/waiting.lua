#!lua flags=no-writes
-- Counts what waits in a shard, for people, a page at a time: by queue, reason, whether it is due, and whether the broker has a copy.
--
-- ARGV  1 now or ''   2 from which place in the due index   3 how many
-- Reply {how many were looked at, a flat list of: queue, reason, '1' if due, '1' if a copy was published, how many, when the oldest of
--       them was created (µs)}
--
-- Places move while tasks come and go, so a count over several pages is about right. Records of a newer format are left out.
-- include clock
-- include record
local first = tonumber(ARGV[2])
local found = redis.call('ZRANGE', DUE, first, first + tonumber(ARGV[3]) - 1, 'WITHSCORES')
local ids, kinds, out = {}, {}, {}
for i = 1, #found, 2 do ids[#ids + 1] = found[i] end
if #ids == 0 then return { 0, out } end
local records = redis.call('HMGET', REC, unpack(ids))
local at = now_us() + tonumber(redis.call('HGET', META, 'skew') or '0') -- see include/due_time.lua

for i, packed in ipairs(records) do
  local rec = packed and cmsgpack.unpack(packed)
  if rec and rec[VERSION] <= FORMAT and rec[STATE] == 's' then
    local due, published = tonumber(found[2 * i]) <= at and '1' or '0', rec[PUBS] > 0 and '1' or '0'
    local kind = table.concat({ rec[QUEUE], rec[REASON], due, published }, '\n')
    local seen = kinds[kind]
    if not seen then
      seen = { rec[QUEUE], rec[REASON], due, published, 0, rec[CREATED] }
      kinds[kind] = seen
    end
    seen[5], seen[6] = seen[5] + 1, math.min(seen[6], rec[CREATED])
  end
end
for _, seen in pairs(kinds) do
  seen[6] = int(seen[6] * 1000000)
  for _, part in ipairs(seen) do out[#out + 1] = part end
end
return { #ids, out }
