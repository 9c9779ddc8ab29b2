#!lua flags=allow-oom
-- Notes that copies were published, and when each record is to be looked at again.
--
-- ARGV  1 now or ''   2 first grace (µs)   3 longest grace (µs)   4… pairs of task id, fence
-- Reply how many records were marked
--
-- Accepts `waiting` and ownerless `hooks pending` under exactly this fence; a record that was claimed meanwhile is left alone.
-- The grace doubles with every copy that nobody claimed. A crash before it: published again. After it: claimed, or due again.
-- include clock
-- include record
-- include stats
-- include due_time
-- include ready
-- include lots
-- include park
local now, first, longest = now_us(), tonumber(ARGV[2]), tonumber(ARGV[3])
local at, marked = due_time(now), 0
for i = 4, #ARGV, 2 do
  local id, fence = ARGV[i], tonumber(ARGV[i + 1])
  local rec = load(id)
  if rec and rec[FENCE] == fence and awaits_publication(rec) then
    local grace = math.min(longest, first * 2 ^ rec[PUBS])
    if rec[PUBS] == 0 then rec.ready = ready_since(id, rec, now) end
    rec[PUBS], rec[STICKY] = rec[PUBS] + 1, true
    if rec[STATE] == 's' and is_parked_for(rec[REASON]) then rec[REASON] = '' end
    count(rec, 'published')
    set_due(id, at + grace)
    save(id, rec)
    marked = marked + 1
  end
end
return marked
