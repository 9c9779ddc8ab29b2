#!lua flags=allow-oom
-- Notes that copies were published, or why they were not, and when each record is to be looked at again.
--
-- ARGV  1 now or ''   2 first grace (µs)   3 longest grace (µs)   4… triples of task id, fence, '' or the reason it is held back
-- Reply how many records were marked
--
-- Accepts `waiting` and ownerless `hooks pending` under exactly this fence; a record that was claimed meanwhile is left alone.
-- The grace doubles with every copy that nobody claimed. A crash before it: published again. After it: claimed, or due again.
-- include clock
-- include record
-- include due_time
local now, first, longest = now_us(), tonumber(ARGV[2]), tonumber(ARGV[3])
local at, marked = due_time(now), 0
for i = 4, #ARGV, 3 do
  local id, fence, held = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2]
  local rec = load(id)
  if rec and rec[FENCE] == fence and (rec[STATE] == 's' or (rec[STATE] == 'h' and rec[OWNER] == '')) then
    if held == '' then
      local grace = math.min(longest, first * 2 ^ rec[PUBS])
      rec[PUBS], rec[STICKY] = rec[PUBS] + 1, true
      if rec[REASON] == 'no consumer' then rec[REASON] = '' end
      count('published')
      set_due(id, at + grace)
    else
      if rec[STATE] == 's' then rec[REASON] = held end -- an ended task keeps the reason of its end
      set_due(id, at + math.min(first, 5000000))
    end
    save(id, rec)
    marked = marked + 1
  end
end
return marked
