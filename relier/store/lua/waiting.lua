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
-- include shown
local now, first = now_us(), tonumber(ARGV[2])
local ids = redis.call('ZRANGE', DUE, first, first + tonumber(ARGV[3]) - 1)
local kinds, out = {}, {}
for _, id in ipairs(ids) do
  local rec = load(id)
  if rec and rec[STATE] == 's' then
    local due = tonumber(shown_due(id, rec, now)) <= now and '1' or '0'
    local kind = rec[QUEUE] .. '\n' .. rec[REASON] .. '\n' .. due .. (rec[PUBS] > 0 and '1' or '0')
    local place = kinds[kind]
    if not place then
      place = #out + 5
      kinds[kind] = place
      for _, part in ipairs({ rec[QUEUE], rec[REASON], due, rec[PUBS] > 0 and '1' or '0', 0, rec[CREATED] }) do out[#out + 1] = part end
    end
    out[place], out[place + 1] = out[place] + 1, math.min(out[place + 1], rec[CREATED])
  end
end
for i = 6, #out, 6 do out[i] = int(out[i] * 1000000) end
return { #ids, out }
