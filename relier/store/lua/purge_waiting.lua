#!lua flags=allow-oom
-- Ends the tasks of one page of a shard's due index that a purge concerns: delayed, retrying, put back, held, parked, waiting for a key.
--
-- ARGV  1 now or ''   2 the mark's time (µs)   3 retention (µs)   4 '1': only tell   5 whom the purge concerns (see include/purging.lua), as JSON
--       6 when the mark was written (µs)   7 ZSCAN cursor ('0' at first)   8 about how many
-- Reply {next cursor ('0' at the end), the ids of those that are purged}
--
-- Accepts `waiting` only. A crash before it: the page is looked at again, or its tasks meet the mark at their claim. After it: they have
-- ended, and a copy that was published finds them so.
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
local now, at, keep, only_tell = now_us(), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4] == '1'
local is_concerned, written, ended = concerns(ARGV[5]), tonumber(ARGV[6]), {}

local scanned = redis.call('ZSCAN', DUE, ARGV[7], 'COUNT', ARGV[8])
for i = 1, #scanned[2], 2 do
  local id = scanned[2][i]
  local rec = load(id)
  if rec and rec[STATE] == 's' and is_concerned(rec) and is_older(rec, 0, at, written) then
    ended[#ended + 1] = id
    if not only_tell then
      discard_task(id, rec, now, keep, 'purged')
      save(id, rec)
    end
  end
end
if #ended > 0 and not only_tell then event(now, 'purged', '', 'tasks', #ended, 'found', 'store') end
return { scanned[1], ended }
